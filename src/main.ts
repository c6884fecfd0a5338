import { join } from 'node:path';
import type { Logger } from 'pino';
import { startWorker } from '../workers/index.ts';
import { type Config, ConfigError, loadConfig } from './config.ts';
import type { Problem } from './document.ts';
import { SluiceError } from './errors.ts';
import { readPolicies, startGateway } from './gateway/index.ts';
import { type RedisServer, startRedisServer } from './redis-server/index.ts';
import { type Simulator, startSimulator } from './simulator/index.ts';
import { createLog, startOpenTelemetry } from './telemetry/index.ts';

/**
 * The composition root: configuration -> parts -> start; stop in reverse. Each process of a cluster
 * is one of these functions; `src/cli.ts` runs them and turns signals into `stop`.
 */

/** Something that runs until it is stopped. */
export interface Running {
  /** Where it is reached, for those that listen. */
  readonly url?: string | undefined;
  /** The same of gRPC, `host:port`. */
  readonly grpcAddress?: string | undefined;
  stop(): Promise<void>;
}

export interface StartOptions {
  readonly env: NodeJS.ProcessEnv;
  /** The config file, in place of SLUICE_CONFIG. */
  readonly configFile?: string | undefined;
}

/** What has started so far, to be stopped in reverse, each once. */
class Parts {
  readonly #stops: (() => Promise<unknown>)[] = [];

  /** Keeps what has started. */
  async add<Part extends { stop(): Promise<unknown> }>(starting: Promise<Part>): Promise<Part> {
    const part = await starting;
    this.#stops.push(() => part.stop());
    return part;
  }

  /** Goes on past a part that fails to stop, and then throws what that one threw. */
  async stop(): Promise<void> {
    const failures: unknown[] = [];
    for (let stop = this.#stops.pop(); stop; stop = this.#stops.pop()) {
      await stop().catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw new AggregateError(failures, 'not everything stopped in order');
  }
}

type Reached = Pick<Running, 'url' | 'grpcAddress'>;

/** Starts all that `start` adds, or stops what did start and throws. */
async function together(start: (parts: Parts) => Promise<Reached>): Promise<Running> {
  const parts = new Parts();
  try {
    const { url, grpcAddress } = await start(parts);
    return { url, grpcAddress, stop: () => parts.stop() };
  } catch (error) {
    await parts.stop();
    throw error;
  }
}

/** The configuration, or every problem in it and in its policies at once. */
function readConfig(options: StartOptions, firstRun: boolean): Config {
  let problems: readonly Problem[] = [];
  let policies: Config['policies'];
  let config: Config | undefined;
  try {
    config = loadConfig({ file: options.configFile, env: options.env, firstRun });
    policies = config.policies;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    ({ problems, policies } = error);
  }
  const all = [...problems, ...readPolicies(policies, config?.models).problems];
  if (config === undefined || all.length > 0) throw new ConfigError(all);
  return config;
}

function prepare(options: StartOptions, name: string, firstRun = false) {
  const config = readConfig(options, firstRun);
  const log = createLog(config.logLevel, name);
  return { config, log };
}

async function addTelemetry(parts: Parts, config: Config, env: NodeJS.ProcessEnv): Promise<void> {
  if (config.otelEndpoint === undefined) return;
  const stop = startOpenTelemetry(env.OTEL_SERVICE_NAME || 'sluice');
  await parts.add(Promise.resolve({ stop }));
}

/** `sluice gateway`: one of any number, against the Redis of REDIS_URL. */
export function runGateway(options: StartOptions): Promise<Running> {
  return together(async (parts) => {
    const { config, log } = prepare(options, 'gateway');
    await addTelemetry(parts, config, options.env);
    return parts.add(startGateway(config, redisUrlOf(config), log));
  });
}

/** `sluice worker`: one of any number, against the Redis of REDIS_URL. */
export function runWorker(options: StartOptions): Promise<Running> {
  return together(async (parts) => {
    const { config, log } = prepare(options, 'worker');
    await addTelemetry(parts, config, options.env);
    await parts.add(startWorker(config, redisUrlOf(config), log));
    return {};
  });
}

function redisUrlOf(config: Config): string {
  if (config.redisUrl !== undefined) return config.redisUrl;
  const message =
    'REDIS_URL is not set: gateways and workers share one Redis (or run `sluice dev`)';
  throw new SluiceError('unavailable', message);
}

/** All of a cluster in one place. */
export interface Dev extends Running {
  readonly url: string;
  readonly config: Config;
  readonly redis: { readonly url: string; readonly kind: string };
  readonly simulators: readonly Simulator[];
}

/** Times of the simulated replicas are divided by this. */
const devSpeed = 10;
const devSlots = 2;
/** A first run stops at once: nobody waits for its answers. */
const devGraceMs = 1_000;

/**
 * `sluice dev`: gateway, two workers, Redis where REDIS_URL names none, and two simulated replicas
 * where the config names none, on one machine.
 */
export async function runDev(options: StartOptions, dataFolder = '.sluice'): Promise<Dev> {
  const env = { ...options.env, LOG_LEVEL: options.env.LOG_LEVEL || 'warn' };
  const { config, log } = prepare({ ...options, env }, 'dev', true);
  let redis: Dev['redis'] | undefined;
  const simulators: Simulator[] = [];
  const running = await together(async (parts) => {
    await addTelemetry(parts, config, options.env);
    redis = await devRedis(parts, config, dataFolder);
    const pools = { ...config.pools };
    for (const [pool, { replicas }] of Object.entries(config.pools)) {
      if (replicas.length > 0) continue;
      const models = Object.keys(config.models).filter(
        (name) => config.models[name]?.pool === pool,
      );
      const started = await Promise.all(
        [1, 2].map(() => parts.add(startSimulator({ slots: devSlots, speed: devSpeed, models }))),
      );
      simulators.push(...started);
      pools[pool] = {
        replicas: started.map(({ url }, index) => ({
          id: `simulator-${pool}-${index + 1}`,
          url,
          protocol: 'ollama',
          maxInflight: devSlots,
        })),
      };
    }
    // One name for three members would make them one.
    const { nodeId: _, ...shared } = config;
    const whole = { ...shared, pools };
    for (const name of ['worker-1', 'worker-2']) {
      const part = startWorker(whole, redis.url, log.child({ part: name }));
      await parts.add(quickly(part));
    }
    return parts.add(quickly(startGateway(whole, redis.url, log)));
  });
  if (running.url === undefined || redis === undefined) throw new Error('dev did not start');
  return { ...running, url: running.url, config, redis, simulators };
}

async function devRedis(parts: Parts, config: Config, folder: string): Promise<Dev['redis']> {
  if (config.redisUrl !== undefined) return { url: config.redisUrl, kind: 'REDIS_URL' };
  const dir = join(folder, 'redis');
  const server: RedisServer = await parts.add(startRedisServer({ dir, appendOnly: true }));
  return server;
}

async function quickly<Part extends { stop(graceMs?: number): Promise<void> }>(
  starting: Promise<Part>,
): Promise<Part> {
  const part = await starting;
  return { ...part, stop: () => part.stop(devGraceMs) };
}

/** `sluice simulator`: one replica without a GPU, in a process of its own. */
export async function runSimulator(
  options: { host: string; port: number; slots: number; speed: number; model: string },
  log: Logger,
): Promise<Running> {
  const simulator = await startSimulator({ ...options, onDie: () => process.exit(1) });
  log.info({ url: simulator.url, slots: options.slots, speed: options.speed }, 'simulator ready');
  return { url: simulator.url, stop: () => simulator.stop() };
}
