/** The cache of Aperture's SDK, by the npm package 2.5.0 as it is. */
import { expect, test } from 'vitest';
import { eventually, newWorld } from '../gateway/world.ts';
import { rawClient, sdk } from './support.ts';

const point = 'mistral-prompt';
const within = (ms: number) => ({ grpcCallOptions: { deadline: Date.now() + ms } });
const ttl = { seconds: 60, nanos: 0 };

test('a result is kept for its control point, and a flow that finds it takes no slot', async () => {
  const world = await newWorld({ max: 1, worker: false });
  const client = sdk(world.grpcAddress);
  const key = { resultCacheKey: 'sky', ...within(9_000) };
  const first = await client.startFlow(point, key);
  expect(first.resultCache().getLookupStatus()).toBe('MISS');
  const bytes = Buffer.from([0, 255, 10, 128]);
  expect((await first.setResultCache({ value: bytes, ttl })).getError()).toBeNull();
  // The only slot is taken.
  const second = await client.startFlow(point, { ...key, grpcCallOptions: {} });
  expect(second.shouldRun()).toBe(true);
  expect(second.resultCache().getLookupStatus()).toBe('HIT');
  expect(second.resultCache().getValue()).toEqual(bytes);
  second.end();
  const elsewhere = await client.startFlow('elsewhere', key);
  expect(elsewhere.resultCache().getLookupStatus()).toBe('MISS');
  expect((await first.deleteResultCache())?.getError()).toBeNull();
  first.end();
  const third = await client.startFlow(point, key);
  expect(third.resultCache().getLookupStatus()).toBe('MISS');
  third.end();
  await world.idle();
});

test('global entries are the same everywhere, and go when their time is over', async () => {
  const world = await newWorld({ worker: false });
  const client = sdk(world.grpcAddress);
  const first = await client.startFlow(point, within(9_000));
  const short = { seconds: 0, nanos: 150_000_000 };
  const put = (key: string, entry: object) =>
    first.setGlobalCache(key, { value: Buffer.from(key), ttl, ...entry });
  expect((await put('long', {})).getError()).toBeNull();
  expect((await put('short', { ttl: short })).getError()).toBeNull();
  expect((await put('never', { ttl: { seconds: 0, nanos: 0 } })).getError()?.message).toBe(
    'ttl must be from 1 ms to 30 days',
  );
  const keys = { globalCacheKeys: ['long', 'short', 'never'] };
  await eventually(async () => {
    const flow = await client.startFlow('elsewhere', { ...keys, ...within(9_000) });
    expect(flow.globalCache('long').getValue()).toEqual(Buffer.from('long'));
    expect(flow.globalCache('never').getLookupStatus()).toBe('MISS');
    flow.end();
    return String(flow.globalCache('short').getLookupStatus()) === 'MISS';
  });
  expect((await first.deleteGlobalCache('long')).getError()).toBeNull();
  const last = await client.startFlow(point, { ...keys, ...within(9_000) });
  expect(last.globalCache('long').getLookupStatus()).toBe('MISS');
});

test('is bounded: what is soonest to expire goes, and a value that is too long is refused', async () => {
  const config = { limits: { cache_bytes: 4_096 } };
  const world = await newWorld({ worker: false, config });
  const client = sdk(world.grpcAddress);
  const flow = await client.startFlow(point, within(9_000));
  const put = (key: string, bytes: number, seconds: number) =>
    flow.setGlobalCache(key, { value: Buffer.alloc(bytes), ttl: { seconds, nanos: 0 } });
  expect((await put('huge', 3_000, 60)).getError()?.message).toContain('2048 bytes');
  await put('soon', 1_000, 10);
  await put('later', 1_000, 60);
  await put('last', 1_000, 90);
  const globalCacheKeys = ['soon', 'later', 'last', 'huge'];
  const after = await client.startFlow(point, { globalCacheKeys, ...within(9_000) });
  const hits = globalCacheKeys.map((key) => after.globalCache(key).getLookupStatus());
  expect(hits).toEqual(['MISS', 'HIT', 'HIT', 'MISS']);
});

test('what it takes in Redis is bounded after every call, many small entries or few large ones', async () => {
  const limit = 64 * 1024;
  const world = await newWorld({ worker: false, config: { limits: { cache_bytes: limit } } });
  const raw = rawClient(world.grpcAddress);
  const values = `sluice:{${world.config.domain}}:cache`;
  const size = async () => {
    const entries = await world.redis.hgetall(values);
    const { '.bytes': counted, ...others } = entries;
    const real = Object.entries(others).flat().join('').length;
    return { counted: Number(counted), real, entries: Object.keys(others).length };
  };
  const upsert = async (call: number, bytes: number) => {
    const entry = { value: Buffer.alloc(bytes, 'x'), ttl: { seconds: 60 + call, nanos: 0 } };
    const keys = Array.from({ length: 100 }, (_, index) => `${call} ${index}`);
    const global_cache_entries = Object.fromEntries(keys.map((key) => [key, entry]));
    const answer = await raw.call('CacheUpsert')({ global_cache_entries });
    return Object.values(answer.global_cache_responses as Record<string, { error: string }>);
  };
  for (const [call, bytes] of [1, 1, 300, 300, 3_000, 1].entries()) {
    const said = await upsert(call, bytes);
    const now = await size();
    expect(now.counted).toBeLessThanOrEqual(limit);
    expect(now.real + now.entries * 150).toBeLessThanOrEqual(now.counted);
    expect(said.map(({ error }) => error).filter(Boolean)).toEqual([]);
  }
  // More in one call than there is room for by letting others go: the rest says so.
  const said = await upsert(9, 30_000);
  expect(new Set(said.map(({ error }) => error))).toEqual(new Set(['']));
  expect((await size()).entries).toBeLessThanOrEqual(2);
});

test('a key that is none is an error of its own: the flow runs, and other entries are kept', async () => {
  const world = await newWorld({ worker: false });
  const client = sdk(world.grpcAddress);
  const long = 'k'.repeat(2_000);
  const flow = await client.startFlow(point, { globalCacheKeys: [long, 'good'], ...within(9_000) });
  expect(flow.shouldRun()).toBe(true);
  const problem = 'a cache key has 1 to 1024 characters';
  expect(flow.globalCache(long).getError()?.message).toBe(problem);
  expect(flow.globalCache('good').getError()).toBeNull();
  const put = (key: string) => flow.setGlobalCache(key, { value: Buffer.from('v'), ttl });
  expect((await put(long)).getError()?.message).toBe(problem);
  expect((await put('good')).getError()).toBeNull();
});
