/** What a worker appends is in Redis once and in order, in few writes, whatever happens to the connection. */
import { Redis } from 'ioredis';
import { expect, onTestFinished, test } from 'vitest';
import { Appender, beginning, idText, readEntries } from '../../src/stream/index.ts';
import { startTestRedis, testRedis } from '../support/redis.ts';

async function connect(url: string): Promise<Redis> {
  const redis = new Redis(url, { maxRetriesPerRequest: 1, retryStrategy: () => 20 });
  redis.on('error', () => {});
  onTestFinished(async () => redis.disconnect());
  return redis;
}

async function newRedis(): Promise<Redis> {
  const server = await testRedis();
  onTestFinished(() => server.stop());
  return connect(server.url);
}

const stream = () => `test:stream:${Math.random()}`;

function open(redis: Redis, streamKey: string, attempt = 1, flushMs = 20) {
  const controller = new AbortController();
  const appender = new Appender({ redis, flushMs });
  onTestFinished(() => appender.stop());
  const writer = appender.open({
    id: 'x',
    attempt,
    streamKey,
    channel: streamKey,
    ttlMs: 60_000,
    signal: controller.signal,
  });
  return { writer, abort: () => controller.abort(new Error('the attempt is over')) };
}

async function eventsIn(redis: Redis, streamKey: string): Promise<string[]> {
  const events: string[] = [];
  for (let after = beginning; ; ) {
    const { entries, isLast } = await readEntries(redis, streamKey, after);
    for (const entry of entries) events.push(...entry.events);
    after = entries.at(-1)?.id ?? after;
    if (isLast) return events;
  }
}

const numbers = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => `e${from + index}`);

test('events are written in order and together, the first by itself', async () => {
  const redis = await newRedis();
  const key = stream();
  const { writer } = open(redis, key);
  for (const event of numbers(1, 500)) {
    await writer.write([event]);
    if (event === 'e1') await expect.poll(() => redis.xlen(key)).toBe(1);
  }
  await expect.poll(() => eventsIn(redis, key)).toHaveLength(500);
  expect(await eventsIn(redis, key)).toEqual(numbers(1, 500));
  expect(await redis.xlen(key)).toBeLessThan(100);
  expect(await redis.pttl(key)).toBeGreaterThan(50_000);
  await writer.write(['e501']);
  const { events, at } = await writer.end();
  // What was not written goes with the end.
  expect([events, idText(at)]).toEqual([['e501'], '1-502']);
});

test('long events have entries of their own, and short ones share', async () => {
  const redis = await newRedis();
  const key = stream();
  const { writer } = open(redis, key);
  const long = 'x'.repeat(60_000);
  await writer.write(['a', long, 'b', long, 'c']);
  await expect.poll(() => eventsIn(redis, key)).toEqual(['a', long, 'b', long, 'c']);
  expect(await redis.xlen(key)).toBe(2);
});

test('what an older attempt says after a younger one is refused by Redis', async () => {
  const redis = await newRedis();
  const key = stream();
  const [first, second] = [open(redis, key, 1), open(redis, key, 2)];
  await first.writer.write(['a']);
  await expect.poll(() => eventsIn(redis, key)).toEqual(['a']);
  await second.writer.write(['A']);
  await expect.poll(() => eventsIn(redis, key)).toEqual(['a', 'A']);
  await first.writer.write(['b']);
  await second.writer.write(['B']);
  await expect.poll(() => eventsIn(redis, key)).toEqual(['a', 'A', 'B']);
  await first.writer.end();
  expect(await eventsIn(redis, key)).toEqual(['a', 'A', 'B']);
});

test('a connection that breaks loses nothing and doubles nothing', async () => {
  const redis = await newRedis();
  const other = redis.duplicate();
  onTestFinished(async () => other.disconnect());
  const key = stream();
  const { writer } = open(redis, key, 1, 1);
  for (const [index, event] of numbers(1, 400).entries()) {
    await writer.write([event]);
    if (index % 50 !== 25) continue;
    await expect.poll(() => redis.status).toBe('ready');
    await other.client('KILL', 'ID', await redis.client('ID'));
  }
  await expect.poll(() => eventsIn(other, key), { timeout: 10_000 }).toHaveLength(400);
  expect(await eventsIn(other, key)).toEqual(numbers(1, 400));
});

test('a Redis that takes no more is told, and one that is away does not hold up a lost attempt', async () => {
  const server = await startTestRedis();
  onTestFinished(() => server.stop());
  const redis = await connect(server.url);
  const full = open(redis, stream());
  await redis.config('SET', 'maxmemory', '1');
  const said = () => full.writer.write(['a']).catch((error: Error) => error.message);
  await expect.poll(said).toContain('OOM');
  await redis.config('SET', 'maxmemory', '0');

  const lost = open(redis, stream());
  await server.stop();
  const event = 'x'.repeat(600_000);
  const blocked = lost.writer.write([event, event, event]);
  lost.abort();
  await expect(blocked).rejects.toThrow('the attempt is over');
  await expect(lost.writer.end()).rejects.toThrow('the attempt is over');
});
