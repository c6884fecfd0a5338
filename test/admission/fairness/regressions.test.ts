/** Cases of the order that went wrong once, here or elsewhere, one by one; more in ../order.test.ts. */

import { expect, test } from 'vitest';
import { domainKey } from '../../../src/admission/keys.ts';
import { newWorld, policyDocument, type World } from '../world.ts';
import { patchOf } from './broken-engines.ts';
import { PatchedWorld } from './scenario.ts';

type Request = Parameters<World['add']>[0];

/** Requests by name, and the order in which they get the one slot that is not taken for good. */
class Line {
  readonly #world: World;
  readonly #names = new Map<string, string>();
  readonly #blockers = new Set<string>();

  constructor(world: World) {
    this.#world = world;
  }

  async add(name: string, count: number, request: Request): Promise<string[]> {
    const ids: string[] = [];
    for (let i = 0; i < count; i++) ids.push(await this.#world.add(request));
    for (const id of ids) this.#names.set(id, name);
    return ids;
  }

  /** Takes slots that {@link turns} does not free. */
  async block(count: number, request: Request): Promise<string[]> {
    const ids = await this.add('blocker', count, request);
    for (const id of ids) this.#blockers.add(id);
    return ids;
  }

  /** Ends a holder `count` times; names of those that ended, `actual` tokens each. */
  async turns(count: number, actual?: (name: string) => number): Promise<string[]> {
    const order: string[] = [];
    while (order.length < count) {
      const holder = (await this.#world.admitted()).find((id) => !this.#blockers.has(id));
      if (holder === undefined) break;
      const name = this.#names.get(holder) ?? '';
      await this.#world.end(holder, actual?.(name));
      order.push(name);
    }
    return order;
  }
}

const countOf = (order: readonly string[], name: string) =>
  order.filter((one) => one === name).length;

async function lineOf(fields: Parameters<typeof policyDocument>[0]): Promise<[World, Line]> {
  const world = await newWorld();
  await world.policies(policyDocument(fields));
  return [world, new Line(world)];
}

test('the clock of a policy never goes back: a workload that joins starts behind the pack', async () => {
  const [, line] = await lineOf({ max: 1 });
  await line.add('steady', 30, { workload: 'steady' });
  await line.add('costly', 1, { workload: 'mixed', user: 'a', cost: 2_000 });
  await line.turns(15);
  // The head of the workload is now a cheap request, whose tag the clock passed long ago.
  await line.add('cheap', 1, { workload: 'mixed', user: 'b', cost: 1 });
  await line.turns(1);
  await line.add('new', 12, { workload: 'new' });
  const order = await line.turns(12);
  expect(countOf(order, 'new')).toBeLessThanOrEqual(6);
  expect(countOf(order, 'new')).toBeGreaterThanOrEqual(5);
});

test('a new key joins behind the pack, and takes turns from its first request on', async () => {
  const [, line] = await lineOf({ max: 1 });
  await line.add('old', 60, { user: 'old' });
  await line.turns(40);
  await line.add('new', 10, { user: 'new' });
  const order = await line.turns(20);
  expect(countOf(order.slice(0, 11), 'new')).toBe(5);
});

test('a key is not let off for what it has blocked: its other queue starts where the pack is', async () => {
  const [, line] = await lineOf({ max: 2, perLabel: { tier: 1 } });
  await line.block(1, { user: 'x', labels: { tier: 't' } });
  await line.add('blocked', 1, { user: 'two', labels: { tier: 't' } });
  await line.add('one', 60, { user: 'one' });
  await line.turns(30);
  await line.add('two', 20, { user: 'two' });
  const order = await line.turns(21);
  expect(countOf(order, 'two')).toBeLessThanOrEqual(11);
  expect(countOf(order, 'two')).toBeGreaterThanOrEqual(9);
});

test('a key whose blocked head is gone has nothing saved up either', async () => {
  const [world, line] = await lineOf({ max: 7, perLabel: { tier: 6 } });
  const tier = { tier: 't' };
  const blockers = await line.block(6, { user: 'x', labels: tier });
  const [head = ''] = await line.add('back', 1, { user: 'back', labels: tier });
  await line.add('back', 20, { user: 'back', labels: tier });
  await line.add('steady', 80, { user: 'steady' });
  await line.turns(30);
  await world.admission.cancel(head, 'gone');
  const before = new Set(await world.admitted());
  for (const id of blockers) await world.end(id);
  const after = (await world.admitted()).filter((id) => !before.has(id));
  const records = await Promise.all(after.map((id) => world.record(id)));
  const back = records.filter(({ queue }) => queue.includes('/back/'));
  expect(after).toHaveLength(6);
  expect(back.length).toBeLessThanOrEqual(4);
  expect(back.length).toBeGreaterThanOrEqual(2);
});

test('a blocked key neither pins the others nor loses its place', async () => {
  const [world, line] = await lineOf({ max: 2, perLabel: { user_id: 1 } });
  const [blocker = ''] = await line.block(1, { user: 'blocked' });
  await line.add('blocked', 5, { user: 'blocked' });
  await line.add('other', 20, { user: 'other' });
  await line.add('another', 20, { user: 'another' });
  expect(countOf(await line.turns(10), 'blocked')).toBe(0);
  await world.end(blocker);
  expect((await line.turns(3)).includes('blocked')).toBe(true);
});

test('priorities hold among workloads that wait for the same limiter, while others pass them', async () => {
  const [world, line] = await lineOf({ max: 2, perLabel: { tier: 1 } });
  const tier = { tier: 't' };
  // The one slot of the tier, and the other one, which serves the third workload alone.
  let [holder = ''] = await line.block(1, { workload: 'first', labels: tier });
  const open = await line.block(30, { workload: 'open', priority: 1, labels: tier });
  const paid = await line.block(30, { workload: 'paid', priority: 5, labels: tier });
  await line.add('third', 200, { workload: 'third' });
  const served = { open: 0, paid: 0 };
  for (let i = 0; i < 24; i++) {
    expect(await line.turns(3)).toEqual(['third', 'third', 'third']);
    await world.end(holder);
    const held = await world.admitted();
    holder = held.find((id) => open.includes(id) || paid.includes(id)) ?? '';
    served[open.includes(holder) ? 'open' : 'paid'] += 1;
  }
  expect(served.open).toBeGreaterThanOrEqual(3);
  expect(served.open).toBeLessThanOrEqual(5);
});

test('who was charged too much gets all of it back, also for many requests at once', async () => {
  const [world] = await lineOf({ max: 4 });
  const names = new Map<string, string>();
  for (let i = 0; i < 300; i++) names.set(await world.add({ user: 'over' }), 'over');
  for (let i = 0; i < 100; i++) names.set(await world.add({ user: 'exact' }), 'exact');
  const tokens = { over: 0, exact: 0 };
  for (let i = 0; i < 50; i++) {
    // All four end before the next settlement counts.
    for (const id of await world.admitted()) {
      const isOver = names.get(id) === 'over';
      tokens[isOver ? 'over' : 'exact'] += isOver ? 10 : 100;
      await world.end(id, isOver ? 10 : 100);
    }
  }
  // The bound of docs/fairness.md: a request each, and four leases of 90 tokens too many.
  expect(Math.abs(tokens.over - tokens.exact)).toBeLessThanOrEqual(200 + 5 * 90);
});

test('twenty invented keys gain nothing against a tenant in another workload', async () => {
  const [, line] = await lineOf({ max: 1 });
  await line.add('honest', 30, { workload: 'honest', user: 'h', priority: 2 });
  for (let i = 0; i < 20; i++) {
    await line.add('inventor', 2, { workload: 'inventor', user: `k${i}`, priority: 2 });
  }
  expect(countOf((await line.turns(41)).slice(1), 'inventor')).toBe(20);
});

test('drain and rejoin gains nothing for a workload either', async () => {
  const [, line] = await lineOf({ max: 1 });
  await line.add('steady', 40, { workload: 'steady', priority: 5 });
  let rejoined = 0;
  const order: string[] = [];
  while (order.length < 36) {
    // It never has two waiting, and comes back as soon as it has none.
    if (countOf(order, 'rejoin') === rejoined) {
      await line.add('rejoin', 1, { workload: 'rejoin', priority: 1 });
      rejoined += 1;
    }
    order.push(...(await line.turns(1)));
  }
  expect(countOf(order, 'rejoin')).toBeLessThanOrEqual(7);
  expect(countOf(order, 'rejoin')).toBeGreaterThanOrEqual(5);
});

test('expired and cancelled heads leave every index', async () => {
  const [world, line] = await lineOf({ max: 1, perLabel: { user_id: 1 } });
  await line.block(1, { user: 'holder' });
  await line.add('expires', 1, { user: 'expires', timeoutMs: 1_000 });
  const cancelled = await line.add('cancelled', 2, { user: 'cancelled' });
  await line.block(1, { user: 'holder' });
  for (const id of cancelled) await world.admission.cancel(id, 'test');
  await world.pass(2_000);
  await world.check();
  for (const name of ['waiting', 'standing', 'queues', 'tree', 'fair', 'idle']) {
    const key = domainKey(world.domain, name);
    const isHash = (await world.redis.type(key)) === 'hash';
    const members = isHash
      ? await world.redis.hkeys(key)
      : await world.redis.zrange(key, '0', '-1');
    expect(members.join('\n'), name).not.toMatch(/expires|cancelled/);
  }
});

test('keys that came once and owe are forgotten, also when many come and go at a time', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 100 }));
  // Somebody is always there, so that nothing begins again from 0.
  const other = await world.add({ user: 'other', workload: 'other' });
  const fair = domainKey(world.domain, 'fair');
  let most = 0;
  for (let round = 0; round < 40; round++) {
    const users = Array.from({ length: 24 }, (_, index) => `u${round}-${index}`);
    const ids = await Promise.all(users.map((user) => world.add({ user, cost: 10 })));
    // Each took far more than was charged, so that its debt outlives it.
    const ended = ids.map((id) => world.admission.finish({ id }, { outcome: 'done', tokens: 100 }));
    await Promise.all(ended);
    if (round >= 20) most = Math.max(most, await world.redis.hlen(fair));
  }
  // Those of the last round, whose debt virtual time has not passed yet.
  expect(most).toBeLessThanOrEqual(24);
  await world.check();
  await world.end(other);
});

test('a cost of 0 counts as 1, and the largest cost waits its turn and no longer', async () => {
  const [world, line] = await lineOf({ max: 1 });
  await line.block(1, { user: 'x', labels: { tokens: '1' } });
  const [free = ''] = await line.add('free', 1, { user: 'free', labels: { tokens: '0' } });
  expect((await world.record(free)).cost).toBe(1);
  const [huge = ''] = await line.add('huge', 1, { user: 'huge', cost: 10_000_000 });
  expect((await world.record(huge)).cost).toBe(10_000_000);
  expect(() => world.submit({ user: 'more', cost: 10_000_001 })).toThrow('tokens');
});

test('the largest cost is served after as many tokens of the others', async () => {
  const [, line] = await lineOf({ max: 1 });
  await line.add('large', 12, { user: 'a', cost: 1_000_000 });
  await line.add('huge', 1, { user: 'b', cost: 10_000_000 });
  const order = await line.turns(13);
  expect(order.indexOf('huge')).toBeGreaterThanOrEqual(10);
  expect(order.indexOf('huge')).toBeLessThanOrEqual(11);
});

test('the order is exact after more than 10^12 tokens, and when tags begin again', async () => {
  const finer = patchOf({
    name: 'units of 10^-10 token',
    breaks: [],
    patch: [
      [
        'function tag_units(cost, weight)\n',
        'function tag_units(cost, weight)\n  cost = cost * 1e7\n',
      ],
    ],
  });
  const orders: string[][] = [];
  for (const patch of [undefined, finer]) {
    const { redis } = await newWorld();
    const world = new PatchedWorld(redis, patch);
    await world.policies(policyDocument({ max: 1 }));
    const line = new Line(world);
    // In the finer units v comes to what 5 * 10^12 tokens are in the usual ones, past 2^52.
    for (const [name, priority, cost, count] of [
      ['a', 1, 10_000, 50],
      ['b', 2, 7_000, 60],
      ['c', 5, 16_000, 60],
    ] as const) {
      await line.add(name, count, { workload: name, priority, cost, user: 'one' });
      await line.add(`${name}2`, count / 2, {
        workload: name,
        priority,
        cost: cost / 5,
        user: 'two',
      });
    }
    orders.push(await line.turns(400));
  }
  expect(orders[1]).toEqual(orders[0]);
  expect(orders[0]).toHaveLength(255);
});
