/** A gateway, a worker and simulated replicas on the test Redis, in a domain and a pool of their own. */
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { expect, onTestFinished } from 'vitest';
import { Admission, type DomainView } from '../../src/admission/index.ts';
import { type Config, loadConfig } from '../../src/config.ts';
import { startGateway } from '../../src/gateway/index.ts';
import {
  type Simulator,
  type SimulatorOptions,
  startSimulator,
} from '../../src/simulator/index.ts';
import { createLog } from '../../src/telemetry/index.ts';
import { startWorker } from '../../workers/index.ts';
import { settings } from '../admission/world.ts';
import { type TestRedis, testRedis } from '../support/redis.ts';
import { slotValues } from './policies.ts';

export interface WorldOptions {
  /** Fields of the config file, over those of the world. */
  readonly config?: object;
  readonly simulator?: SimulatorOptions;
  /** Entries in the pool, all of the one simulator: 1. */
  readonly replicas?: number;
  /** Slots of the policy: 4. */
  readonly max?: number;
  /** A Redis in place of the run's. */
  readonly redisUrl?: string;
  readonly worker?: boolean;
  /** How often the gateway looks at the cluster for telemetry: 10 s. */
  readonly sampleMs?: number;
}

export interface World {
  readonly url: string;
  /** Of gRPC. */
  readonly grpcAddress: string;
  readonly redisUrl: string;
  readonly config: Config;
  readonly simulator: Simulator;
  readonly admission: Admission;
  /** What gateway and worker have logged, all levels. */
  readonly log: () => string;
  readonly redis: Redis;
  /** Resolves when a request has been logged under this code. */
  logged(code: string): Promise<void>;
  view(): Promise<DomainView>;
  /** Resolves when the domain is as the condition wants it. */
  until(condition: (view: DomainView) => boolean): Promise<DomainView>;
  /** Nothing waits, runs or holds a slot. */
  idle(): Promise<void>;
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
  get(path: string, init?: RequestInit): Promise<Response>;
  /** Sends bytes as they are and returns all that comes back until the connection ends. */
  raw(bytes: string | Buffer): Promise<string>;
  /** The connection of a client that has sent this and reads nothing, until it is resumed. */
  unread(path: string, body: object): Promise<Socket>;
  stopGateway(graceMs?: number): Promise<void>;
  /** Another gateway of the cluster, with other fields in its config file. Returns its URL. */
  startAnother(fields?: object): Promise<string>;
}

/** A world for one test, or for all of a file when `stopLater` takes its stops. */
export async function newWorld(
  options: WorldOptions = {},
  stopLater: (stop: () => Promise<void>) => void = onTestFinished,
): Promise<World> {
  const server: TestRedis | undefined = options.redisUrl ? undefined : await testRedis();
  if (server) stopLater(() => server.stop());
  const redisUrl = options.redisUrl ?? server?.url ?? '';
  const simulator = await startSimulator({ speed: 1000, slots: 8, ...options.simulator });
  stopLater(() => simulator.stop());
  const fields = worldFields(simulator.url, options);
  const config = await configOf(fields);

  let text = '';
  const log = createLog('trace', 'test', {
    write: (line: string) => {
      text += line;
    },
  });
  if (options.worker !== false) {
    const worker = await startWorker(config, redisUrl, log);
    stopLater(() => worker.stop(0));
  }
  const { sampleMs } = options;
  const gateway = await startGateway(config, redisUrl, log, { sampleMs });
  stopLater(() => gateway.stop(0));

  const redis = connection(redisUrl, stopLater);
  const admission = new Admission({ redis, domain: config.domain, settings });
  const view = () => admission.inspectDomain(['mistral-prompt']);
  const until: World['until'] = (condition) =>
    expect
      .poll(async () => {
        const now = await view();
        return condition(now) ? now : undefined;
      }, waiting)
      .toBeDefined()
      .then(view);
  return {
    url: gateway.url,
    grpcAddress: gateway.grpcAddress,
    redisUrl,
    config,
    simulator,
    admission,
    log: () => text,
    redis,
    logged: async (code) => {
      await expect.poll(() => text, waiting).toContain(`"code":"${code}"`);
    },
    view,
    until,
    idle: async () => {
      await until(isIdle);
    },
    post: (path, body, init = {}) =>
      fetch(`${gateway.url}${path}`, {
        method: 'POST',
        body: typeof body === 'string' ? body : JSON.stringify(body),
        ...init,
      }),
    get: (path, init = {}) => fetch(`${gateway.url}${path}`, init),
    raw: (bytes) => exchange(gateway.url, bytes),
    unread: (path, body) => sendUnread(gateway.url, path, body),
    stopGateway: (graceMs = 0) => gateway.stop(graceMs),
    startAnother: async (more = {}) => {
      const another = await startGateway(await configOf({ ...fields, ...more }), redisUrl, log);
      stopLater(() => another.stop(0));
      return another.url;
    },
  };
}

const waiting = { timeout: 10_000, interval: 10 };

export function isIdle(view: DomainView): boolean {
  return view.waiting === 0 && view.live === 0 && Object.keys(view.inFlight).length === 0;
}

/** Waits for a condition of the world outside, asked again and again. */
export async function eventually(condition: () => Promise<boolean>): Promise<void> {
  await expect.poll(condition, waiting).toBe(true);
}

/** Values of a policy on `mistral-prompt`, as the first run has it. */
export function policyValues(max: number, name = 'mistral'): object {
  return slotValues({ max, name });
}

function worldFields(replicaUrl: string, options: WorldOptions): object {
  const name = `t${Math.floor(Math.random() * 1e9)}`;
  const replicas = Array.from({ length: options.replicas ?? 1 }, (_, index) => ({
    id: `${name}-${index + 1}`,
    url: replicaUrl,
    max_inflight: 8,
  }));
  return {
    port: 0,
    grpc_port: 0,
    domain: name,
    pools: { [name]: { replicas } },
    models: { mistral: { pool: name, control_point: 'mistral-prompt' } },
    policies: [policyValues(options.max ?? 4)],
    ...options.config,
  };
}

/** Fields of a config file as the configuration that a process would have. JSON is YAML. */
export async function configOf(fields: object): Promise<Config> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-gateway-'));
  try {
    const file = join(folder, 'sluice.yaml');
    await writeFile(file, JSON.stringify(fields));
    return loadConfig({ file, env: {} });
  } finally {
    await rm(folder, { recursive: true });
  }
}

function connection(url: string, stopLater: (stop: () => Promise<void>) => void): Redis {
  const redis = new Redis(url);
  redis.on('error', () => {});
  stopLater(async () => redis.disconnect());
  return redis;
}

function exchange(url: string, bytes: string | Buffer): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(Number(port), hostname, () => socket.write(bytes));
    socket.setEncoding('utf8');
    socket.setTimeout(10_000, () => socket.destroy(new Error(`no end after: ${answer}`)));
    socket.on('data', (text) => {
      answer += text;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(answer));
  });
}

async function sendUnread(url: string, path: string, body: object): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  onTestFinished(() => void socket.destroy());
  await once(socket, 'connect');
  socket.pause();
  const text = JSON.stringify(body);
  const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${text.length}\r\n`;
  socket.write(`${head}\r\n${text}`);
  return socket;
}
