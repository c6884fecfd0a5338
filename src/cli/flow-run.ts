import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import type { Flow } from '../client/index.ts';
import { CommandError, type Exit, exits, report } from './exits.ts';

/** How long a command may take to stop when its flow is over, ms. */
const graceMs = 10_000;

/** Runs a command while the flow is admitted, and ends the flow with it. Returns its exit code. */
export async function runUnder(
  flow: Flow,
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<Exit> {
  let exit: Exit = exits.trouble;
  try {
    exit = await run(flow, command, args, env);
    return exit;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new CommandError('cannot_run', `cannot run ${command}: ${why}`, notFound);
  } finally {
    // The command's own exit code counts; the lease ends what could not be told.
    await flow.end({ status: exit === 0 ? 'ok' : 'error' }).catch((error: unknown) => {
      report(error, false);
    });
  }
}

async function run(
  flow: Flow,
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<Exit> {
  const child = spawn(command, args, {
    stdio: 'inherit',
    env: { ...env, SLUICE_FLOW_ID: flow.id },
  });
  const pass = (name: NodeJS.Signals) => {
    // In a terminal Ctrl-C reaches the command by itself; twice means something else to many.
    if (name !== 'SIGINT' || !process.stdin.isTTY) child.kill(name);
  };
  const stop = () => {
    report(flow.signal.reason, false);
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), graceMs).unref();
  };
  for (const name of passedOn) process.on(name, pass);
  flow.signal.addEventListener('abort', stop);
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
    return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
  } finally {
    for (const name of passedOn) process.off(name, pass);
    flow.signal.removeEventListener('abort', stop);
  }
}

const passedOn = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/** As shells say that there is no such command. */
const notFound = 127;
