#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command, InvalidArgumentError } from 'commander';
import { ConfigError, processEnvironment } from './config.ts';
import { formatDuration } from './document.ts';
import { SluiceError } from './errors.ts';
import { type Dev, type Running, runDev, runGateway, runSimulator, runWorker } from './main.ts';
import { PolicyError, parsePolicy } from './policy/index.ts';
import { RedisServerError } from './redis-server/index.ts';
import { createLog } from './telemetry/index.ts';

/** Subcommands: each starts one process of `src/main.ts` and stops it on SIGINT or SIGTERM. */

const env = processEnvironment();
const program = new Command('sluice')
  .description(
    'A scheduler for self-hosted LLM prompts: one fair order and one set of limits for a whole ' +
      'cluster of gateways and workers, kept in Redis.',
  )
  .version(version())
  .showHelpAfterError('(see sluice --help)')
  .addHelpText(
    'after',
    `
In a clone, \`sluice\` is \`npm run sluice --\`.

Try it on one machine:
  $ sluice dev

Or as a cluster, any number of gateways and workers:
  $ export REDIS_URL=redis://redis:6379 SLUICE_CONFIG=sluice.yaml
  $ sluice gateway
  $ sluice worker

Environment: PORT (8080), HOST (127.0.0.1), GRPC_PORT (8089), REDIS_URL, SLUICE_CONFIG
(sluice.yaml), LOG_LEVEL (info), OTEL_* (tracing and metrics start with
OTEL_EXPORTER_OTLP_ENDPOINT). Every option of the file: sluice.example.yaml.`,
  );

const configOption = ['-c, --config <file>', 'config file, in place of SLUICE_CONFIG'] as const;
interface WithConfig {
  readonly config?: string;
}

program
  .command('dev')
  .description('all in one: gateway, two workers, Redis and two simulated Mistral replicas')
  .option(...configOption)
  .action((options: WithConfig) =>
    run(async () => {
      const dev = await runDev({ env, configFile: options.config });
      printDev(dev);
      return dev;
    }),
  );

program
  .command('gateway')
  .description('take prompts over HTTP and schedule them; needs REDIS_URL')
  .option(...configOption)
  .action((options: WithConfig) => run(() => runGateway({ env, configFile: options.config })));

program
  .command('worker')
  .description('send admitted prompts to the replicas; needs REDIS_URL')
  .option(...configOption)
  .action((options: WithConfig) => run(() => runWorker({ env, configFile: options.config })));

program
  .command('simulator')
  .description('a Mistral replica without a GPU: Ollama, OpenAI and Ray Serve protocols')
  .option('--port <port>', 'TCP port, 0 for a free one', number, 11434)
  .option('--host <host>', 'address to listen on', '127.0.0.1')
  .option('--slots <n>', 'requests it decodes at once; more wait inside it', number, 2)
  .option('--speed <factor>', 'divides every time; 1 is a small real GPU', number, 10)
  .option('--model <name>', 'the model it serves', 'mistral')
  .addHelpText('after', '\nWhat it counts: GET /sim/state. Make it fail: POST /sim/faults.')
  .action((options: Parameters<typeof runSimulator>[0]) =>
    run(() => runSimulator(options, createLog(env.LOG_LEVEL || 'info', 'simulator'))),
  );

await program.parseAsync();

/** Runs until a signal; the second one does not wait. */
async function run(start: () => Promise<Running>): Promise<void> {
  let stopping = false;
  let running: Running | undefined;
  const stop = async () => {
    if (stopping) process.exit(1);
    stopping = true;
    // A signal during the start: whatever is being started belongs to this process and ends with it.
    try {
      await running?.stop();
      process.exit(0);
    } catch (error) {
      console.error(explain(error));
      process.exit(1);
    }
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => void stop());
  if (env.npm_lifecycle_event === 'start') whenOrphaned(() => void stop());
  try {
    running = await start();
  } catch (error) {
    if (!stopping) {
      console.error(explain(error));
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
function explain(error: unknown): string {
  if (error instanceof ConfigError || error instanceof PolicyError) return error.message;
  if (error instanceof SluiceError || error instanceof RedisServerError) {
    return `sluice: ${error.message}`;
  }
  if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') {
    return `sluice: ${error.message}\nThe port is taken: set PORT to another one (PORT=0 takes a free one).`;
  }
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function printDev({ url, config, redis, simulators }: Dev): void {
  const model = config.defaultModel;
  const policies = config.policies.map(({ document }) => describe(document));
  console.log(`
Sluice is ready.

  gateway     ${url}
  redis       ${redis.url} (${redis.kind})
  replicas    ${simulators.map((simulator) => simulator.url).join(', ') || 'as configured'}
  policies    ${policies.join('\n              ')}

Try it:

  curl -s ${url}/v1/chat/completions -H 'Sluice-Labels: user_id=u1,workload=paid,priority=5' -d '{"model": "${model}", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'

Who runs and who waits:  curl -s ${url}/v1/queues
Ctrl-C stops everything.
`);
}

/** A policy in one line. */
function describe(document: unknown): string {
  const policy = parsePolicy(document);
  const points = policy.selectors.map((selector) => selector.controlPoint).join(', ');
  if (policy.kind === 'concurrency' || policy.kind === 'limit') {
    const others = policy.kind === 'limit' ? ', and others are refused,' : '';
    return `${policy.name}: at most ${policy.maxConcurrency} at once${others} on ${points}`;
  }
  const { capacity, fillAmount, intervalMs } = policy.bucket;
  const what = policy.kind === 'rate' ? 'rate limit' : 'quota';
  const rate = `${capacity}, and ${fillAmount} more each ${formatDuration(intervalMs)}`;
  return `${policy.name}: a ${what} of ${rate} on ${points}`;
}

function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('not a number');
  return value;
}

function version(): string {
  const file = new URL('../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
