/** A cluster as it is deployed: gateways and workers as processes, in front of given replicas. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { temporaryFolder } from './folder.ts';
import { startProgram } from './programs.ts';

const cli = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));

export interface PromptCluster extends AsyncDisposable {
  /** Of the gateways. */
  readonly urls: readonly string[];
}

export interface PromptClusterOptions {
  readonly redisUrl: string;
  readonly gateways: number;
  readonly workers: number;
  readonly replicas: {
    readonly protocol: 'ollama' | 'openai';
    readonly urls: readonly string[];
  };
  /** Over all replicas, over all workers, and by the policy. */
  readonly slots: number;
}

export async function startPromptCluster(options: PromptClusterOptions): Promise<PromptCluster> {
  await using parts = new AsyncDisposableStack();
  const folder = await temporaryFolder();
  parts.defer(folder.remove);
  const file = join(folder.path, 'sluice.yaml');
  await writeFile(file, stringify(configOf(options)));
  const env = {
    REDIS_URL: options.redisUrl,
    SLUICE_CONFIG: file,
    PORT: '0',
    GRPC_PORT: '0',
    LOG_LEVEL: 'info',
  };
  const start = async (command: string, id: string) => {
    const program = await startProgram({
      name: `sluice ${command}`,
      args: [cli, command],
      env: { ...env, SLUICE_NODE_ID: id },
      ready: (lines) => saysReady(lines, command),
    });
    return parts.use(program).ready;
  };
  const urls: string[] = [];
  for (let number = 0; number < options.gateways; number++) {
    urls.push(await start('gateway', `g${number}`));
  }
  for (let number = 0; number < options.workers; number++) await start('worker', `w${number}`);
  const started = parts.move();
  return { urls, [Symbol.asyncDispose]: () => started.disposeAsync() };
}

/** The URL in the line that says that it is ready; '' for one that has none. */
async function saysReady(lines: Interface, command: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  lines.on('line', (line) => {
    const entry = JSON.parse(line) as { msg?: string; url?: string };
    if (entry.msg === `${command} ready`) resolve(entry.url ?? '');
  });
  return promise;
}

function configOf({ replicas, slots, workers }: PromptClusterOptions): object {
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
  const { protocol, urls } = replicas;
  return {
    domain: 'prompts',
    policies: [policy],
    pools: {
      mistral: {
        replicas: urls.map((url, index) => ({
          id: `replica-${index + 1}`,
          url,
          protocol,
          max_inflight: slots / urls.length,
        })),
      },
    },
    worker: { concurrency: { mistral: slots / workers } },
  };
}
