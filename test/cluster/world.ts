/**
 * A cluster of real processes against one real Redis: `sluice gateway` and `sluice worker` as
 * children, killed as a machine would kill them. The replica runs in the test, so that what it saw
 * can be asked without a network between.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Redis } from 'ioredis';
import { onTestFinished } from 'vitest';
import { stringify } from 'yaml';
import { domainKey } from '../../src/admission/keys.ts';
import {
  type Simulator,
  type SimulatorOptions,
  startSimulator,
} from '../../src/simulator/index.ts';
import { policyDocument } from '../admission/world.ts';
import { testRedis } from '../support/redis.ts';

const cli = new URL('../../src/cli.ts', import.meta.url).pathname;

export class SluiceProcess {
  readonly child: ChildProcess;
  /** The line with which the process said that it is ready. */
  readonly ready: Record<string, unknown>;

  constructor(child: ChildProcess, ready: Record<string, unknown>) {
    this.child = child;
    this.ready = ready;
  }

  get url(): string {
    return String(this.ready.url);
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exit = once(this.child, 'exit');
    this.child.kill(signal);
    await exit;
  }
}

export interface ClusterOptions {
  readonly maxConcurrency: number | 'auto';
  readonly simulator?: SimulatorOptions;
  /** Further fields of the replica. */
  readonly replica?: object;
  /** Further fields of the config file. */
  readonly config?: object;
}

export class Cluster {
  readonly redis: Redis;
  readonly domain: string;
  readonly simulator: Simulator;
  readonly #env: NodeJS.ProcessEnv;

  constructor(redis: Redis, domain: string, simulator: Simulator, env: NodeJS.ProcessEnv) {
    this.redis = redis;
    this.domain = domain;
    this.simulator = simulator;
    this.#env = env;
  }

  gateway(id: string): Promise<SluiceProcess> {
    return this.#start('gateway', id);
  }

  worker(id: string): Promise<SluiceProcess> {
    return this.#start('worker', id);
  }

  /** Ids of all live requests. */
  async live(): Promise<string[]> {
    const ids = await Promise.all(
      ['requests', 'held'].map((name) => this.redis.hkeys(domainKey(this.domain, name))),
    );
    return ids.flat();
  }

  /** What a running prompt's record says beside its times. */
  async running(id: string): Promise<{ worker?: string }> {
    const record = await this.redis.hget(domainKey(this.domain, 'held'), id);
    return JSON.parse(record?.split('\n')[2] ?? '{}') as { worker?: string };
  }

  /** How requests ended: their states. */
  async ends(): Promise<string[]> {
    const ends = await Promise.all(
      ['ended', 'jobs_ended'].map((name) => this.redis.hvals(domainKey(this.domain, name))),
    );
    return ends.flat().map((text) => text.split(' ')[0] ?? '');
  }

  /** Slots that are taken, by limiter. */
  inFlight(): Promise<Record<string, string>> {
    return this.redis.hgetall(domainKey(this.domain, 'in_flight'));
  }

  #start(command: string, id: string): Promise<SluiceProcess> {
    return startProcess([command], { ...this.#env, SLUICE_NODE_ID: id });
  }
}

/** Starts `sluice <command> ...`; resolves when it says that it is ready. */
async function startProcess(
  args: readonly [command: string, ...string[]],
  env: NodeJS.ProcessEnv,
): Promise<SluiceProcess> {
  const [command] = args;
  const child = spawn(process.execPath, [cli, ...args], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout });
  const { promise, resolve, reject } = Promise.withResolvers<Record<string, unknown>>();
  lines.on('line', (line) => {
    const entry = JSON.parse(line) as Record<string, unknown>;
    if (entry.msg === `${command} ready`) resolve(entry);
  });
  child.once('exit', (code, signal) => reject(new Error(`${command} ended: ${code ?? signal}`)));
  const started = new SluiceProcess(child, await promise);
  onTestFinished(() => started.kill('SIGKILL'));
  return started;
}

/** A replica that can be killed. */
export function simulatorProcess(options: {
  readonly slots: number;
  readonly speed: number;
  readonly port?: number;
}): Promise<SluiceProcess> {
  const given = Object.entries({ port: 0, ...options });
  const flags = given.flatMap(([name, value]) => [`--${name}`, String(value)]);
  return startProcess(['simulator', ...flags], { PATH: process.env.PATH, LOG_LEVEL: 'info' });
}

export async function newCluster(options: ClusterOptions): Promise<Cluster> {
  const server = await testRedis();
  onTestFinished(() => server.stop());
  const simulator = await startSimulator({ slots: 16, ...options.simulator });
  onTestFinished(() => simulator.stop());
  const folder = await mkdtemp(join(tmpdir(), 'sluice-cluster-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const domain = `c${Math.floor(Math.random() * 1e9)}`;
  const file = join(folder, 'sluice.yaml');
  const replica = {
    id: 'replica-1',
    protocol: 'ollama',
    max_inflight: 16,
    ...options.replica,
    url: simulator.url,
  };
  const policy = policyDocument({
    name: 'mistral',
    max: options.maxConcurrency,
    controlPoint: 'mistral-prompt',
  });
  await writeFile(
    file,
    stringify({
      domain,
      policies: [policy],
      pools: { mistral: { replicas: [replica] } },
      ...options.config,
    }),
  );
  return new Cluster(server.connect(), domain, simulator, {
    PATH: process.env.PATH,
    REDIS_URL: server.url,
    SLUICE_CONFIG: file,
    PORT: '0',
    GRPC_PORT: '0',
    LOG_LEVEL: 'info',
  });
}

/** What the other process does is seen by asking: until it holds, or the deadline passes. */
export async function eventually<Value>(
  what: string,
  ask: () => Promise<Value | undefined | false>,
  deadlineMs: number,
): Promise<Value> {
  const until = performance.now() + deadlineMs;
  for (;;) {
    const value = await ask();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > until) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export interface Chat {
  readonly status: number;
  readonly id: string;
  readonly queuedMs: number;
}

/** One prompt through a gateway, to its end. */
export async function chat(
  url: string,
  labels: string,
  text: string,
  signal?: AbortSignal,
  fields: object = {},
): Promise<Chat> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'sluice-labels': labels },
    body: JSON.stringify({ messages: [{ role: 'user', content: text }], ...fields }),
    ...(signal && { signal }),
  });
  await response.arrayBuffer();
  return {
    status: response.status,
    id: response.headers.get('sluice-request-id') ?? '',
    queuedMs: Number(response.headers.get('sluice-queue-ms')),
  };
}

/** A job through a gateway: its id. */
export async function submitJob(url: string, text: string): Promise<string> {
  const response = await fetch(`${url}/v1/jobs`, {
    method: 'POST',
    body: JSON.stringify({ path: '/api/generate', body: { prompt: text } }),
  });
  const { id } = (await response.json()) as { id: string };
  return id;
}

export async function jobState(url: string, id: string): Promise<string> {
  const response = await fetch(`${url}/v1/jobs/${id}`);
  return ((await response.json()) as { state: string }).state;
}
