/** Where a run was made, so that its figures can be placed. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { peerVersions } from './support/peers.ts';

const root = fileURLToPath(new URL('../', import.meta.url));

export interface Environment {
  /** Short hash; with `-dirty` when the product's files differ from it. */
  readonly commit: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly hardware: {
    readonly cpu: string;
    readonly cores: number;
    readonly memoryGiB: number;
    readonly platform: string;
  };
}

export function environment(): Environment {
  const peers = peerVersions();
  return {
    commit: commit(),
    versions: {
      node: process.versions.node,
      ioredis: versionOf('node_modules/ioredis'),
      bullmq: versionOf('node_modules/bullmq'),
      bottleneck: peers.bottleneck,
      'redis-semaphore': peers['redis-semaphore'],
      'portkey gateway': peers['@portkey-ai/gateway'],
    },
    hardware: {
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      cores: availableParallelism(),
      memoryGiB: Math.round(totalmem() / 2 ** 30),
      platform: `${process.platform} ${process.arch}`,
    },
  };
}

function commit(): string {
  try {
    const hash = git('rev-parse', '--short=10', 'HEAD');
    const changed = git('status', '--porcelain', '--', 'src', 'workers', 'lua');
    return changed === '' ? hash : `${hash}-dirty`;
  } catch {
    return 'unknown';
  }
}

function git(...args: string[]): string {
  const stdio = ['ignore', 'pipe', 'ignore'] as ['ignore', 'pipe', 'ignore'];
  return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio }).trim();
}

function versionOf(folder: string): string {
  const text = readFileSync(`${root}${folder}/package.json`, 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
