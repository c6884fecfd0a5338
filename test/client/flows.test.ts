/** The client for Node against a real gateway: flows in line, kept, given up and ended. */
import { expect, test } from 'vitest';
import { FlowRejectedError, SluiceClient } from '../../src/client/index.ts';
import { slotValues } from '../gateway/policies.ts';
import { newWorld } from '../gateway/world.ts';

const point = 'mistral-prompt';
const failureOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error) => error,
  );
const waiting = (count: number) => (view: { waiting: number }) => view.waiting === count;

test('work of many callers at two gateways, never more at once than the policy lets', async () => {
  const world = await newWorld({ worker: false, max: 3 });
  const urls = [world.url, await world.startAnother()];
  let running = 0;
  let most = 0;
  const full = Promise.withResolvers<void>();
  const work = async () => {
    running += 1;
    most = Math.max(most, running);
    if (running === 3) full.resolve();
    // Nobody leaves before all places have been taken once.
    await full.promise;
    await new Promise((resolve) => setTimeout(resolve, 5));
    running -= 1;
    return 'done';
  };
  const results = await Promise.all(
    Array.from({ length: 30 }, (_, index) => {
      const sluice = new SluiceClient({ url: urls[index % 2] ?? '' });
      return sluice.withFlow(point, { labels: { user_id: `u${index % 4}` } }, work);
    }),
  );
  expect(results).toEqual(Array.from({ length: 30 }, () => 'done'));
  expect(most).toBe(3);
  await world.idle();
});

test('a flow that is done, one whose work throws, and one that ends with its block', async () => {
  const world = await newWorld({ worker: false, max: 1 });
  const sluice = new SluiceClient({ url: world.url, fetch });
  const ids: string[] = [];
  const own = await sluice.withFlow(point, { tokens: 5 }, async (flow) => {
    ids.push(flow.id);
    return flow.end({ tokens: 9 });
  });
  expect(own.state).toBe('done');
  const failing = sluice.withFlow(point, {}, (flow) => {
    ids.push(flow.id);
    throw new Error('of the work');
  });
  expect(await failureOf(failing)).toMatchObject({ message: 'of the work' });
  {
    await using flow = await sluice.startFlow(point);
    ids.push(flow.id);
    expect((await world.view()).inFlight).toEqual({ mistral: 1 });
  }
  await world.idle();
  const states = ids.map(async (id) => (await world.admission.inspectRequest(id)).ended?.state);
  expect(await Promise.all(states)).toEqual(['done', 'failed', 'done']);
});

test('who waits too long is rejected, who gives up leaves the queue', async () => {
  const scheduler = { denied_response_status_code: 418 };
  const policies = [slotValues({ max: 1, scheduler })];
  const world = await newWorld({ worker: false, config: { policies } });
  const sluice = new SluiceClient({ url: world.url });
  const held = await sluice.startFlow(point);
  expect(held).toMatchObject({ limited: true, leaseMs: 60_000 });
  const late = await failureOf(sluice.startFlow(point, { timeoutMs: 50 }));
  expect(late).toBeInstanceOf(FlowRejectedError);
  expect(late).toMatchObject({ code: 'queue_timeout', status: 418 });
  expect((late as FlowRejectedError).retryAfterMs).toBeGreaterThan(0);
  const leaving = new AbortController();
  const given = failureOf(sluice.startFlow(point, { signal: leaving.signal }));
  await world.until(waiting(1));
  leaving.abort(new Error('gave up'));
  expect(await given).toMatchObject({ message: 'gave up' });
  await world.until(waiting(0));
  await held.end();
  await world.idle();
});

test('heartbeats keep a flow past its lease; without them it is over, and the work is told', async () => {
  const world = await newWorld({
    worker: false,
    max: 1,
    config: { timeouts: { heartbeat: '800ms' } },
  });
  let silent = false;
  const sluice = new SluiceClient({
    url: world.url,
    fetch: (url, init) => (silent ? Promise.reject(new Error('cut off')) : fetch(url, init)),
  });
  const flow = await sluice.startFlow(point, { heartbeat: true });
  expect(flow.leaseMs).toBe(800);
  await new Promise((resolve) => setTimeout(resolve, 1_800));
  expect(flow.signal.aborted).toBe(false);
  expect((await world.view()).inFlight).toEqual({ mistral: 1 });
  silent = true;
  await world.idle();
  expect(flow.signal.aborted).toBe(false);
  silent = false;
  await expect.poll(() => flow.signal.aborted, { timeout: 5_000 }).toBe(true);
  expect(flow.signal.reason).toMatchObject({ code: 'flow_over', status: 409 });
  expect(await flow.end()).toMatchObject({ state: 'expired' });
});
