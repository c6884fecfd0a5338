/** The cache of Aperture's SDK, by the npm package 2.5.0 as it is. */
import { expect, test } from 'vitest';
import { eventually, newWorld } from '../gateway/world.ts';
import { sdk } from './support.ts';

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
  await put('soon', 1_500, 10);
  await put('later', 1_500, 60);
  await put('last', 1_000, 90);
  const globalCacheKeys = ['soon', 'later', 'last', 'huge'];
  const after = await client.startFlow(point, { globalCacheKeys, ...within(9_000) });
  const hits = globalCacheKeys.map((key) => after.globalCache(key).getLookupStatus());
  expect(hits).toEqual(['MISS', 'HIT', 'HIT', 'MISS']);
});
