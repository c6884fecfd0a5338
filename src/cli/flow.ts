import { type Command, Option } from 'commander';
import { SluiceClient } from '../client/index.ts';
import { CommandError, exits } from './exits.ts';
import { ending, printJson, type ServerOptions, withServer } from './server.ts';
import { label, milliseconds, number } from './values.ts';

/** Commands for flows: work that the caller does itself, between start and end. */
export function flowCommands(program: Command, env: NodeJS.ProcessEnv): void {
  const flow = program
    .command('flow')
    .description('wait for a turn, do work of your own, and say when it is done');

  withStart(flow.command('start'))
    .description('wait in line until the flow is admitted, and print its id')
    .option(
      '--heartbeat',
      'the flow is to be kept by `sluice flow heartbeat`, every few seconds; otherwise it lasts ' +
        'until its end, or as long as the policy lets it',
    )
    .addHelpText(
      'after',
      `
Exit code 3 when it is not admitted: the queue is full, a rate limit is used up, or the wait too long.
Ctrl-C leaves the queue.

  $ id=$(sluice flow start mistral-prompt -l user_id=u1 --timeout 30s) || exit
  $ python batch.py
  $ sluice flow end "$id"`,
    )
    .action((controlPoint: string, options: StartOptions & { heartbeat?: true }) =>
      ending(options, async () => {
        const leaving = leaveOnSignal();
        const flow = await startFlow(controlPoint, options, leaving, options.heartbeat === true);
        const { id, leaseMs: lease_ms, limited } = flow;
        if (options.json) printJson({ id, state: 'admitted', lease_ms, limited });
        else console.log(id);
        return exits.ok;
      }),
    );

  withServer(flow.command('heartbeat'))
    .description('a sign of life for a flow; prints for how many milliseconds it is kept')
    .argument('<id>')
    .addHelpText('after', '\n  $ while sluice flow heartbeat "$id"; do sleep 3; done')
    .action((id: string, options: ServerOptions) =>
      ending(options, async () => {
        const lease_ms = await new SluiceClient(options).heartbeat(id);
        if (options.json) printJson({ id, state: 'admitted', lease_ms });
        else console.log(String(lease_ms));
        return exits.ok;
      }),
    );

  withServer(flow.command('end'))
    .description('end a flow, which admits who is next; may be repeated')
    .argument('<id>')
    .option('--tokens <n>', 'what it really cost', number)
    .addOption(new Option('--status <status>', 'how the work went').choices(['ok', 'error']))
    .addHelpText('after', '\n  $ sluice flow end "$id" --tokens 350 --status ok')
    .action((id: string, options: EndOptions) =>
      ending(options, async () => {
        const { tokens, status } = options;
        const ended = await new SluiceClient(options).endFlow(id, { tokens, status });
        if (options.json) printJson(ended);
        else console.log(ended.state);
        return exits.ok;
      }),
    );

  withStart(flow.command('run'))
    .description('wait for a turn, run a command with it, and end it with the command')
    .argument('<command...>', 'after --, with its arguments')
    .addHelpText(
      'after',
      `
Sends heartbeats, passes signals on, and stops the command when the gateway says that the flow is
over. The command finds its flow in SLUICE_FLOW_ID. The exit code is that of the command, or 3 when
the flow is not admitted and nothing was run.

  $ sluice flow run mistral-prompt -l user_id=u1 -- python batch.py`,
    )
    .action((controlPoint: string, [command = '', ...args]: string[], options: StartOptions) =>
      ending(options, async () => {
        const { runUnder } = await import('./flow-run.ts');
        const leaving = leaveOnSignal();
        const flow = await startFlow(controlPoint, options, leaving, true);
        leaving.stop();
        return runUnder(flow, command, args, env);
      }),
    );
}

interface StartOptions extends ServerOptions {
  readonly label?: Readonly<Record<string, string>>;
  readonly timeout?: number;
  readonly tokens?: number;
}

interface EndOptions extends ServerOptions {
  readonly tokens?: number;
  readonly status?: 'ok' | 'error';
}

function withStart(command: Command): Command {
  return withServer(command)
    .argument('<control-point>', 'where to wait for a turn')
    .option('-l, --label <key=value>', 'who asks; again for each label', label)
    .option('--timeout <duration>', 'the longest wait: 30s, 1m30s, or milliseconds', milliseconds)
    .option('--tokens <n>', 'what it is likely to cost', number);
}

async function startFlow(
  controlPoint: string,
  options: StartOptions,
  { signal }: Leaving,
  heartbeat: boolean,
) {
  const { label: labels, timeout: timeoutMs, tokens } = options;
  const asked = { labels, timeoutMs, tokens, heartbeat, signal };
  const flow = await new SluiceClient(options).startFlow(controlPoint, asked);
  if (!flow.limited) console.error(`sluice: no policy limits flows at ${controlPoint}`);
  return flow;
}

interface Leaving {
  readonly signal: AbortSignal;
  /** From now on signals do what they do otherwise. */
  stop(): void;
}

/** Ctrl-C gives up the wait; the exit code is the shell's for that signal. */
function leaveOnSignal(): Leaving {
  const leaving = new AbortController();
  const leave = (name: NodeJS.Signals, number: number) => {
    const message = `stopped by ${name} before the flow was admitted`;
    leaving.abort(new CommandError('interrupted', message, 128 + number));
  };
  process.on('SIGINT', leave).on('SIGTERM', leave);
  return {
    signal: leaving.signal,
    stop: () => void process.off('SIGINT', leave).off('SIGTERM', leave),
  };
}
