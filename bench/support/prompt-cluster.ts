/** A cluster as it is deployed: gateways and workers as processes, replicas without a GPU. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Agent, request } from 'undici';
import { stringify } from 'yaml';
import type { Span } from '../children/gateway.ts';
import { Child } from './children.ts';
import { temporaryFolder } from './folder.ts';
import { inLanes } from './loop.ts';

const cli = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));
const replicas = 2;
const workers = 2;
const startMs = 30_000;

export interface PromptCluster {
  /** Sends so many prompts over all gateways, some at a time; resolves when all are answered. */
  ask(count: number, clients: number): Promise<void>;
  /** What the replicas ran since they were last asked. */
  spans(): Promise<Span[]>;
  stop(): Promise<void>;
}

export interface PromptClusterOptions {
  readonly redisUrl: string;
  readonly gateways: number;
  /** Over all replicas. */
  readonly slots: number;
  /** What every prompt takes. */
  readonly workMs: number;
}

export async function startPromptCluster(options: PromptClusterOptions): Promise<PromptCluster> {
  const { redisUrl, gateways, slots, workMs } = options;
  const stops: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const end of stops.splice(0).toReversed()) await end();
  };
  try {
    const children = Array.from({ length: replicas }, () => new Child('replica'));
    for (const child of children) stops.push(() => child.stop());
    const each = { slots: slots / replicas, workMs };
    const urls = await Promise.all(children.map((child) => child.ask<string>('start', each)));

    const folder = await temporaryFolder();
    stops.push(folder.remove);
    const file = join(folder.path, 'sluice.yaml');
    await writeFile(file, stringify(configOf(urls, slots)));
    const env = {
      PATH: process.env.PATH,
      REDIS_URL: redisUrl,
      SLUICE_CONFIG: file,
      PORT: '0',
      LOG_LEVEL: 'info',
    };
    const start = async (command: string, id: string) => {
      const started = await startSluice(command, { ...env, SLUICE_NODE_ID: id });
      stops.push(started.stop);
      return started.url;
    };
    const gatewayUrls: string[] = [];
    for (let number = 0; number < gateways; number++) {
      gatewayUrls.push(await start('gateway', `g${number}`));
    }
    for (let number = 0; number < workers; number++) await start('worker', `w${number}`);
    const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0 });
    stops.push(() => agent.close());
    return {
      ask: (count, clients) =>
        inLanes(count, clients, (number) =>
          ask(agent, gatewayUrls[number % gateways] ?? '', number),
        ),
      spans: async () =>
        (await Promise.all(children.map((child) => child.ask<Span[]>('spans')))).flat(),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function ask(dispatcher: Agent, url: string, number: number): Promise<void> {
  const { statusCode, body } = await request(`${url}/v1/chat/completions`, {
    method: 'POST',
    dispatcher,
    headers: { 'sluice-labels': `user_id=u${number % 50}` },
    body: JSON.stringify({ messages: [{ role: 'user', content: `prompt ${number}` }] }),
  });
  const text = await body.text();
  if (statusCode !== 200) throw new Error(`a prompt was answered ${statusCode}: ${text}`);
}

function configOf(urls: readonly string[], slots: number): object {
  const policy = {
    blueprint: 'concurrency-scheduling/base',
    policy: {
      policy_name: 'mistral',
      concurrency_scheduler: {
        max_concurrency: slots,
        concurrency_limiter: { max_inflight_duration: '60s' },
        scheduler: {
          fairness_label_key: 'user_id',
          default_workload_parameters: { priority: 1, queue_timeout: '600s' },
        },
        selectors: [{ control_point: 'mistral-prompt' }],
      },
    },
  };
  const each = slots / urls.length;
  return {
    domain: 'prompts',
    policies: [policy],
    pools: {
      mistral: {
        replicas: urls.map((url, index) => ({
          id: `replica-${index + 1}`,
          url,
          protocol: 'ollama',
          max_inflight: each,
        })),
      },
    },
    worker: { concurrency: { mistral: slots / workers } },
  };
}

/** Starts `sluice <command>` and waits for the line that says it is ready. */
async function startSluice(command: string, env: NodeJS.ProcessEnv) {
  const child = spawn(process.execPath, [cli, command], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const endWithUs = () => child.kill('SIGKILL');
  process.once('exit', endWithUs);
  const ready = Promise.withResolvers<string>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    const entry = JSON.parse(line) as { msg?: string; url?: string };
    if (entry.msg === `${command} ready`) ready.resolve(entry.url ?? '');
  });
  child.once('exit', (code, signal) => {
    process.off('exit', endWithUs);
    ready.reject(new Error(`sluice ${command} ended: ${code ?? signal}`));
  });
  const timer = setTimeout(() => ready.reject(new Error(`${command} is not ready`)), startMs);
  const url = await ready.promise.finally(() => clearTimeout(timer));
  return { url, stop: () => end(child) };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}
