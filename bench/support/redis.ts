/**
 * The Redis that is measured: a native server of our own on a free port, which keeps nothing on
 * disk. Never one that is there already, since the benchmark empties it.
 */

import { Redis } from 'ioredis';
import { RedisServerError, startRedisServer } from '../../src/redis-server/index.ts';
import { findNativeServer } from '../../src/redis-server/native.ts';
import { temporaryFolder } from './folder.ts';

/** How every server is set up, for the results. */
export const persistence = 'appendonly no, save ""';

export interface BenchRedis {
  readonly url: string;
  /** `redis-server` or `valkey-server`. */
  readonly kind: string;
  readonly version: string;
  /** For what the benchmark itself asks of the server; idle while something is measured. */
  readonly admin: Redis;
  stop(): Promise<void>;
}

/** An empty server. @throws when no native one is installed. */
export async function startBenchRedis(): Promise<BenchRedis> {
  const native = await findNativeServer({ kinds: ['valkey-server', 'redis-server'] });
  if (native === undefined) {
    throw new RedisServerError(
      'not_found',
      'no redis-server or valkey-server 7 or newer on the PATH. The benchmark measures a native ' +
        'server only (what WebAssembly or a container adds would be most of the figures); install ' +
        'one, for example with: apt-get install redis-server',
    );
  }
  const folder = await temporaryFolder();
  const server = await startRedisServer({ dir: folder.path, appendOnly: false, kind: native.kind });
  const admin = new Redis(server.url);
  const info = String(await admin.info('server'));
  const version = /^(?:valkey|redis)_version:(\S+)/m.exec(info)?.[1] ?? 'unknown';
  return {
    url: server.url,
    kind: server.kind,
    version,
    admin,
    stop: async () => {
      admin.disconnect();
      await server.stop();
      await folder.remove();
    },
  };
}

/** A field of INFO, as a number. */
export async function infoNumber(redis: Redis, section: string, field: string): Promise<number> {
  const text = String(await redis.info(section));
  const value = new RegExp(`^${field}:(\\S+)`, 'm').exec(text)?.[1];
  if (value === undefined) throw new Error(`INFO ${section} has no ${field}`);
  return Number(value);
}

/** Calls of a command since the server's counts were last reset, those of scripts included. */
export async function commandCalls(redis: Redis, command: string): Promise<number> {
  const text = String(await redis.info('commandstats'));
  return Number(new RegExp(`^cmdstat_${command}:calls=(\\d+)`, 'm').exec(text)?.[1] ?? 0);
}
