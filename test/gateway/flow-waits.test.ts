/** Flows that wait hear of their turn also when its event was lost. */
import { expect, test } from 'vitest';
import type { RequestView } from '../../src/admission/index.ts';
import { FlowWaits } from '../../src/gateway/flow-waits.ts';

/** Redis as far as it is asked: the records of flows by their id. */
function newWaits(views: Readonly<Record<string, object>>) {
  const errors: unknown[] = [];
  const cancelled: string[] = [];
  let isAway = false;
  const away = () => {
    if (isAway) throw new Error('away');
  };
  const waits = new FlowWaits(
    {
      inspectLive: async (ids, onlyWaiting) => {
        away();
        expect(onlyWaiting).toBe(true);
        const isWaiting = (id: string) => JSON.stringify(views[id] ?? {}).includes('"waiting"');
        return new Set(ids.filter(isWaiting));
      },
      cancel: async (id) => {
        away();
        cancelled.push(id);
        return { status: 'cancelled' };
      },
      inspectRequest: async (id) => {
        away();
        return (views[id] ?? {}) as RequestView;
      },
    },
    (error) => errors.push(error),
  );
  return {
    waits,
    errors,
    cancelled,
    goAway: (goes: boolean) => {
      isAway = goes;
    },
  };
}

/** What was told so far; undefined for nothing. */
async function toldOf(news: Promise<unknown>): Promise<unknown> {
  return Promise.race([news, new Promise((resolve) => setImmediate(() => resolve(undefined)))]);
}

test('events tell at once, and an end with what stands in its record', async () => {
  const ended = { state: 'cancelled', code: 'unavailable', message: 'its gateway is gone' };
  const { waits } = newWaits({ b: { ended } });
  const [a, b] = [waits.listen('a'), waits.listen('b')];
  waits.onEvent({ id: 'a', state: 'waiting' });
  expect(await toldOf(a)).toBeUndefined();
  waits.onEvent({ id: 'a', state: 'admitted' });
  expect(await a).toBe('admitted');
  waits.onEvent({ id: 'b', state: 'cancelled', code: 'unavailable' });
  expect(await b).toEqual(ended);
  const c = waits.listen('c');
  waits.onEvent({ id: 'c', state: 'rejected', code: 'queue_timeout' });
  expect(await c).toMatchObject({ state: 'rejected', code: 'queue_timeout' });
  waits.onEvent({ id: 'stranger', state: 'admitted' });
});

test('a look tells what was missed, and leaves those that wait, or are on their way, alone', async () => {
  const { waits } = newWaits({
    admitted: { request: { state: 'admitted' } },
    ended: { ended: { state: 'cancelled', code: 'unavailable' } },
    waiting: { request: { state: 'waiting' } },
  });
  const news = ['admitted', 'ended', 'waiting', 'unknown'].map((id) => waits.listen(id));
  await waits.check();
  expect(await Promise.all(news.map(toldOf))).toEqual([
    'admitted',
    { state: 'cancelled', code: 'unavailable' },
    undefined,
    undefined,
  ]);
});

test('a flow that was taken in and that Redis does not know any more is lost', async () => {
  const { waits } = newWaits({});
  const news = waits.listen('a');
  waits.accepted('a');
  await waits.check();
  expect(await news).toMatchObject({ state: 'lost', code: 'unavailable' });
});

test('a flow whose caller left while Redis was away is withdrawn by a later look, once', async () => {
  const { waits, cancelled, errors, goAway } = newWaits({});
  goAway(true);
  await waits.withdraw('a');
  await waits.check();
  expect(cancelled).toEqual([]);
  expect(errors.length).toBeGreaterThan(0);
  goAway(false);
  await waits.check();
  await waits.check();
  expect(cancelled).toEqual(['a']);
});

test('while Redis is away nobody is told anything, and the next look tells', async () => {
  const { waits, errors, goAway } = newWaits({ a: { request: { state: 'admitted' } } });
  const news = waits.listen('a');
  goAway(true);
  await waits.check();
  expect(await toldOf(news)).toBeUndefined();
  expect(errors).toHaveLength(1);
  goAway(false);
  await waits.check();
  expect(await news).toBe('admitted');
  waits.forget('a');
  await waits.check();
});
