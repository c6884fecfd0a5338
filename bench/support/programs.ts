/** Node programs as they are deployed: processes of their own, which end with the benchmark. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface, type Interface } from 'node:readline';

const startMs = 30_000;

export interface ProgramOptions<Ready> {
  readonly name: string;
  /** The script and what it is given. */
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Resolves once it can be used; it may read what the program prints. */
  readonly ready: (lines: Interface) => Promise<Ready>;
}

export interface Program<Ready> extends AsyncDisposable {
  readonly ready: Ready;
}

/** Starts a program and waits until it is ready. What it prints goes through a pipe to nobody. */
export async function startProgram<Ready>(options: ProgramOptions<Ready>): Promise<Program<Ready>> {
  const { name, args, env } = options;
  const child = spawn(process.execPath, args, {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, 'exit');
    kill();
    await exit;
  };
  const failed = Promise.withResolvers<never>();
  child.once('exit', (code, signal) => {
    process.off('exit', kill);
    failed.reject(new Error(`${name} ended: ${code ?? signal}`));
  });
  const timer = setTimeout(() => failed.reject(new Error(`${name} is not ready`)), startMs);
  const lines = createInterface({ input: child.stdout });
  try {
    const ready = await Promise.race([options.ready(lines), failed.promise]);
    return { ready, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  } finally {
    clearTimeout(timer);
    lines.close();
    child.stdout.resume();
    // Whoever uses it sees that it has ended.
    failed.promise.catch(() => undefined);
  }
}
