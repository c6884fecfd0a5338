import type { Command } from 'commander';
import type { Running } from '../main.ts';
import { exits } from './exits.ts';
import { number } from './values.ts';

/**
 * Commands that run: each starts one process of `src/main.ts` and stops it on SIGINT or SIGTERM. What
 * they are made of is loaded by the command itself: the others start without it.
 */
export function processCommands(program: Command, env: NodeJS.ProcessEnv): void {
  const run = (start: () => Promise<Running>) => runUntilSignal(start, env);

  program
    .command('dev')
    .description('all in one: gateway, two workers, Redis and two simulated Mistral replicas')
    .option(...configOption)
    .action((options: WithConfig) =>
      run(async () => {
        const { runDev } = await import('../main.ts');
        const dev = await runDev({ env, configFile: options.config });
        const { printDev } = await import('./dev.ts');
        printDev(dev);
        return dev;
      }),
    );

  program
    .command('gateway')
    .description('take prompts over HTTP and schedule them; needs REDIS_URL')
    .option(...configOption)
    .action((options: WithConfig) =>
      run(async () => {
        const { runGateway } = await import('../main.ts');
        return runGateway({ env, configFile: options.config });
      }),
    );

  program
    .command('worker')
    .description('send admitted prompts to the replicas; needs REDIS_URL')
    .option(...configOption)
    .action((options: WithConfig) =>
      run(async () => {
        const { runWorker } = await import('../main.ts');
        return runWorker({ env, configFile: options.config });
      }),
    );

  program
    .command('simulator')
    .description('a Mistral replica without a GPU: Ollama, OpenAI and Ray Serve protocols')
    .option('--port <port>', 'TCP port, 0 for a free one', number, 11434)
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--slots <n>', 'requests it decodes at once; more wait inside it', number, 2)
    .option('--speed <factor>', 'divides every time; 1 is a small real GPU', number, 10)
    .option('--model <name>', 'the model it serves', 'mistral')
    .addHelpText('after', '\nWhat it counts: GET /sim/state. Make it fail: POST /sim/faults.')
    .action((options: SimulatorOptions) =>
      run(async () => {
        const { runSimulator } = await import('../main.ts');
        const { createLog } = await import('../telemetry/index.ts');
        return runSimulator(options, createLog(env.LOG_LEVEL || 'info', 'simulator'));
      }),
    );
}

const configOption = ['-c, --config <file>', 'config file, in place of SLUICE_CONFIG'] as const;

interface WithConfig {
  readonly config?: string;
}

type SimulatorOptions = Parameters<typeof import('../main.ts').runSimulator>[0];

/**
 * What starts us may pass a signal on that has reached us already: npm does with Ctrl-C. Only one that
 * comes later than this is a second one, ms.
 */
const sameSignalMs = 1_000;
/** Of the commands that run; those that only ask a gateway take less. */
const leastNode = 24;

/** Runs until a signal; the second one does not wait. */
async function runUntilSignal(
  start: () => Promise<Running>,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const [major = 0] = process.versions.node.split('.').map(Number);
  if (major < leastNode) {
    console.error(`sluice: this command needs Node ${leastNode}, this is ${process.versions.node}`);
    process.exit(exits.trouble);
  }
  let stoppingSince: number | undefined;
  let running: Running | undefined;
  const stop = async () => {
    if (stoppingSince !== undefined) {
      if (performance.now() - stoppingSince > sameSignalMs) process.exit(1);
      return;
    }
    stoppingSince = performance.now();
    // A signal during the start: whatever is being started belongs to this process and ends with it.
    try {
      await running?.stop();
      process.exit(0);
    } catch (error) {
      console.error(await explain(error));
      process.exit(1);
    }
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => void stop());
  if (env.npm_lifecycle_event === 'start') whenOrphaned(() => void stop());
  try {
    running = await start();
  } catch (error) {
    if (stoppingSince === undefined) {
      console.error(await explain(error));
      process.exit(1);
    }
  }
}

/** npm's own end, by a signal other than the terminal's, does not reach what it started. */
function whenOrphaned(stop: () => void): void {
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    stop();
  }, 500);
  timer.unref();
}

/** An error of the world in plain words, one of ours with its stack. */
async function explain(error: unknown): Promise<string> {
  const { ConfigError } = await import('../config.ts');
  const { SluiceError } = await import('../errors.ts');
  const { PolicyError } = await import('../policy/index.ts');
  const { RedisServerError } = await import('../redis-server/index.ts');
  if (error instanceof ConfigError || error instanceof PolicyError) return error.message;
  if (error instanceof SluiceError || error instanceof RedisServerError) {
    return `sluice: ${error.message}`;
  }
  if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') {
    return `sluice: ${error.message}\nThe port is taken: set PORT to another one (PORT=0 takes a free one).`;
  }
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
