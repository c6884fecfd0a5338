/**
 * What Sluice is measured beside. No dependencies of the product: a folder of their own, with a lock
 * file, is installed when it is missing. Libraries are loaded by name, so that nothing of ours is
 * compiled against them; Portkey's gateway is a program.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../peers/', import.meta.url));
const names = ['bottleneck', 'redis-semaphore', 'ioredis', '@portkey-ai/gateway'] as const;
type PeerName = (typeof names)[number];

/** A limiter of Bottleneck, as far as it is used here. */
export interface BottleneckLimiter {
  schedule<Result>(work: () => Promise<Result>): Promise<Result>;
  chain(limiter: BottleneckLimiter): BottleneckLimiter;
  ready(): Promise<unknown>;
  on(event: 'error', listener: (error: unknown) => void): void;
  disconnect(flush?: boolean): Promise<void>;
}

export interface BottleneckGroup {
  key(name: string): BottleneckLimiter;
  on(event: 'created', listener: (limiter: BottleneckLimiter) => void): void;
  on(event: 'error', listener: (error: unknown) => void): void;
  disconnect(flush?: boolean): Promise<void>;
}

export interface BottleneckModule {
  new (options: object): BottleneckLimiter;
  Group: new (options: object) => BottleneckGroup;
  IORedisConnection: new (
    options: object,
  ) => {
    disconnect(flush?: boolean): Promise<void>;
    on(event: 'error', listener: (error: unknown) => void): void;
  };
}

/** A permit of redis-semaphore. */
export interface Semaphore {
  acquire(): Promise<void>;
  release(): Promise<void>;
}

export interface SemaphoreModule {
  Semaphore: new (redis: object, key: string, limit: number) => Semaphore;
}

/** ioredis, as a peer's user has it. */
export interface RedisModule {
  Redis: new (
    url: string,
  ) => {
    script(command: 'LOAD', source: string): Promise<unknown>;
    evalsha(sha: string, keys: number): Promise<unknown>;
    disconnect(): void;
  };
}

export interface Peers {
  readonly bottleneck: BottleneckModule;
  readonly semaphore: SemaphoreModule;
  readonly redis: RedisModule;
}

export async function loadPeers(progress: (text: string) => void): Promise<Peers> {
  await installPeers(progress);
  const load = createRequire(`${folder}package.json`);
  return {
    bottleneck: load('bottleneck' satisfies PeerName) as BottleneckModule,
    semaphore: load('redis-semaphore' satisfies PeerName) as SemaphoreModule,
    redis: load('ioredis' satisfies PeerName) as RedisModule,
  };
}

/** Installs what is missing. */
export async function installPeers(progress: (text: string) => void): Promise<void> {
  if (isInstalled()) return;
  progress('installing the peers, npm ci in bench/peers');
  await install();
}

/** A file of one of them. */
export function peerPath(path: `${PeerName}/${string}`): string {
  return `${folder}node_modules/${path}`;
}

/** What is installed, by name; '-' for what is not. */
export function peerVersions(): Record<PeerName, string> {
  const versions = names.map((name) => [name, versionIn(`${folder}node_modules/${name}`) ?? '-']);
  return Object.fromEntries(versions) as Record<PeerName, string>;
}

function isInstalled(): boolean {
  const wanted = (readJson(`${folder}package.json`).dependencies ?? {}) as Record<string, string>;
  return names.every((name) => versionIn(`${folder}node_modules/${name}`) === wanted[name]);
}

function versionIn(path: string): string | undefined {
  const file = `${path}/package.json`;
  return existsSync(file) ? String(readJson(file).version) : undefined;
}

function readJson(file: string): Record<string, unknown> {
  return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
}

async function install(): Promise<void> {
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  // What npm says goes to stderr: stdout is for the results.
  const npm = spawn('npm', args, { cwd: folder, stdio: ['ignore', 2, 2] });
  const [code] = (await once(npm, 'exit')) as [number | null];
  if (code !== 0 || !isInstalled()) {
    throw new Error('npm ci in bench/peers failed: that needs the network once');
  }
}
