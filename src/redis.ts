import { Redis } from 'ioredis';
import { SluiceError } from './errors.ts';

/**
 * Connections to Redis. Commands have a deadline; blocking reads (BullMQ's) and subscriptions must
 * not, so they get connections of their own.
 */

/** How long a command may take before Redis counts as away, ms. */
const commandTimeoutMs = 5_000;
/** How long a process waits for Redis when it starts, ms. */
const startTimeoutMs = 10_000;

export type ConnectionUse = 'commands' | 'blocking' | 'events';

/** Connects, or says within 10 s that it cannot. `name` shows up in CLIENT LIST. */
export async function connectRedis(url: string, use: ConnectionUse, name: string): Promise<Redis> {
  const redis = new Redis(url, {
    connectionName: `sluice-${name}-${use}`,
    lazyConnect: true,
    maxRetriesPerRequest: use === 'commands' ? 3 : null,
    retryStrategy: (attempt) => Math.min(50 * 2 ** Math.min(attempt, 6), 1_000),
    ...(use === 'commands' ? { commandTimeout: commandTimeoutMs } : {}),
  });
  let last: Error | undefined;
  redis.on('error', (error: Error) => {
    last = error;
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(() => {
    redis.disconnect();
    const reason = last?.message ? `: ${last.message}` : '';
    const message = `cannot reach Redis at ${new URL(url).host}${reason}`;
    reject(new SluiceError('unavailable', message, { cause: last }));
  }, startTimeoutMs);
  redis.once('ready', resolve);
  redis.connect().catch(() => {
    // Tried again by the strategy above until the timer ends it.
  });
  await promise.finally(() => clearTimeout(timer));
  return redis;
}

/** What a server must be to keep the promises: scripts' effects in order, and no key ever evicted. */
export async function checkServer(redis: Redis): Promise<void> {
  const info = await redis.info();
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
  const version = field('redis_version') ?? '0';
  const problems: string[] = [];
  if (Number.parseInt(version, 10) < 7) {
    problems.push(`it is version ${version}; Redis 7 or Valkey is needed`);
  }
  const policy = field('maxmemory_policy');
  if (policy !== undefined && policy !== 'noeviction') {
    problems.push(
      `its maxmemory-policy is ${policy}; with anything but noeviction it may drop queues`,
    );
  }
  if (problems.length > 0) {
    throw new SluiceError('unavailable', `this Redis cannot be used: ${problems.join('; ')}`);
  }
}
