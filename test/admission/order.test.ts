/** The order in which waiting requests are admitted: weighted fair queueing and its traps. */

import { expect, test } from 'vitest';
import { newWorld, policyDocument, type World } from './world.ts';

/** Adds `count` requests named `name` and remembers their ids. */
async function fill(
  world: World,
  names: Map<string, string>,
  name: string,
  count: number,
  request: Parameters<World['add']>[0] = {},
): Promise<void> {
  for (let i = 0; i < count; i++) names.set(await world.add(request), name);
}

const countOf = (order: readonly string[], name: string) =>
  order.filter((one) => one === name).length;

test('one queue is first in, first out', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  for (let i = 0; i < 8; i++) await fill(world, names, `r${i}`, 1, { user: 'u' });
  expect(await world.drain(names)).toEqual(['r0', 'r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'r7']);
});

test('workloads share by priority: 5 to 1', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  await fill(world, names, 'open', 60, { workload: 'open', priority: 1 });
  await fill(world, names, 'paid', 60, { workload: 'paid', priority: 5 });
  const order = await world.drain(names);
  // The first was admitted while nobody else was there. Then one of six is an open one.
  expect(countOf(order.slice(1, 61), 'paid')).toBe(50);
  expect(countOf(order, 'open')).toBe(60);
  expect(order.lastIndexOf('paid')).toBeLessThan(order.lastIndexOf('open'));
});

test('fairness keys of a workload share equally, whatever they have queued', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  await fill(world, names, 'greedy', 40, { user: 'greedy' });
  await fill(world, names, 'modest', 10, { user: 'modest' });
  const order = await world.drain(names);
  expect(countOf(order.slice(0, 21), 'modest')).toBe(10);
});

test('tokens are the cost: who sends requests of twice the tokens gets half as many', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  await fill(world, names, 'large', 20, { user: 'a', cost: 200 });
  await fill(world, names, 'small', 40, { user: 'b', cost: 100 });
  const order = await world.drain(names);
  expect(countOf(order.slice(1, 31), 'small')).toBe(20);
});

test('endless new keys do not starve a costly request', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const running = await world.add({ user: 'first', cost: 10 });
  const costly = await world.add({ user: 'costly', cost: 500 });
  let holder = running;
  // Each newcomer joins behind what was served: after 50 of them it is the costly one's turn.
  for (let i = 0; i < 60; i++) {
    await world.add({ user: `new-${i}`, cost: 10 });
    await world.end(holder);
    [holder = ''] = await world.admitted();
    if (holder === costly) return expect(i).toBeLessThanOrEqual(51);
  }
  throw new Error('the costly request was passed over by 60 newcomers');
});

test('a workload that waits keeps its tag while others come and go', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  const order: string[] = [];
  await fill(world, names, 'open', 50, { workload: 'open', priority: 1 });
  // The paid workload never has more than one request waiting: it drains and comes back each time.
  for (let i = 0; i < 300 && order.length < 300; i++) {
    if (i < 250) await fill(world, names, 'paid', 1, { workload: 'paid', priority: 5 });
    const [holder] = await world.admitted();
    if (holder === undefined) break;
    order.push(names.get(holder) ?? '');
    await world.end(holder);
  }
  expect(countOf(order, 'open')).toBe(50);
  expect(countOf(order.slice(0, 120), 'open')).toBeGreaterThanOrEqual(19);
});

test('a blocked key neither holds up the others nor comes back with credit', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 2, perLabel: { user_id: 1 } }));
  const names = new Map<string, string>();
  const blocker = await world.add({ user: 'blocked' });
  await fill(world, names, 'blocked', 20, { user: 'blocked' });
  await fill(world, names, 'a', 20, { user: 'a' });
  await fill(world, names, 'b', 20, { user: 'b' });
  // The blocked user's slot is busy; a and b take turns on the other one.
  const before: string[] = [];
  for (let i = 0; i < 20; i++) {
    const holder = (await world.admitted()).find((id) => id !== blocker);
    if (holder === undefined) throw new Error('the free slot stands idle');
    before.push(names.get(holder) ?? '');
    await world.end(holder);
    await world.check();
  }
  expect(countOf(before, 'blocked')).toBe(0);
  // The very first was admitted before b was there.
  expect(countOf(before.slice(1), 'a')).toBe(10);
  // It comes back next in line, and takes turns from then on: nothing was saved up.
  await world.end(blocker);
  const after = await world.drain(names);
  expect(after.slice(0, 3)).toContain('blocked');
  expect(countOf(after.slice(0, 18), 'blocked')).toBeLessThanOrEqual(9);
});

test('a key that stood blocked has no turns to make up for when its cap goes', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 2, perLabel: { user_id: 1 } }));
  const names = new Map<string, string>();
  const blocker = await world.add({ user: 'blocked' });
  await fill(world, names, 'blocked', 20, { user: 'blocked' });
  await fill(world, names, 'a', 40, { user: 'a' });
  await fill(world, names, 'b', 40, { user: 'b' });
  for (let i = 0; i < 30; i++) {
    await world.end((await world.admitted()).find((id) => id !== blocker) ?? '');
  }
  await world.policies(policyDocument({ max: 1, perLabel: { user_id: 100 } }));
  await world.end(blocker);
  for (const id of await world.admitted()) await world.end(id);
  const order = await world.drain(names);
  expect(countOf(order.slice(0, 18), 'blocked')).toBeGreaterThanOrEqual(5);
  expect(countOf(order.slice(0, 18), 'blocked')).toBeLessThanOrEqual(8);
});

test('drain and rejoin gains nothing', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  await fill(world, names, 'steady', 30, { user: 'steady' });
  const order: string[] = [];
  let rejoins = 0;
  for (let i = 0; i < 30; i++) {
    // Comes back the moment it has nothing waiting.
    if (![...names].some(([id, name]) => name === 'rejoin' && !order.includes(id))) {
      await fill(world, names, 'rejoin', 1, { user: 'rejoin' });
      rejoins += 1;
    }
    const [holder = ''] = await world.admitted();
    order.push(holder);
    await world.end(holder);
  }
  expect(rejoins).toBeLessThanOrEqual(16);
});

test('many invented keys gain nothing against a tenant in another workload', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  await fill(world, names, 'honest', 40, { workload: 'honest', priority: 1, user: 'h' });
  for (let i = 0; i < 20; i++) {
    await fill(world, names, 'inventor', 2, { workload: 'inventor', priority: 1, user: `k${i}` });
  }
  const order = await world.drain(names);
  expect(countOf(order.slice(1, 41), 'inventor')).toBe(20);
});

test('actual tokens settle the charge in both directions, once', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  // Both are charged 100; a's really cost 300, so b gets three turns to its one.
  await fill(world, names, 'a', 40, { user: 'a' });
  await fill(world, names, 'b', 40, { user: 'b' });
  const order: string[] = [];
  for (let i = 0; i < 40; i++) {
    const [holder = ''] = await world.admitted();
    const name = names.get(holder) ?? '';
    order.push(name);
    const tokens = name === 'a' ? 300 : 100;
    await world.end(holder, tokens);
    expect((await world.end(holder, tokens)).status).toBe('already');
  }
  expect(countOf(order, 'b')).toBeGreaterThanOrEqual(28);
  expect(countOf(order, 'b')).toBeLessThanOrEqual(31);
});

test('policies that compete for one pool share it equally', async () => {
  const world = await newWorld();
  await world.policies(
    policyDocument({ name: 'p1', max: 10, controlPoint: 'one' }),
    policyDocument({ name: 'p2', max: 10, controlPoint: 'two' }),
  );
  await world.pool('gpu', 1);
  const names = new Map<string, string>();
  await fill(world, names, 'one', 20, { controlPoint: 'one', pool: 'gpu' });
  await fill(world, names, 'two', 20, { controlPoint: 'two', pool: 'gpu' });
  const order: string[] = [];
  for (let i = 0; i < 21; i++) {
    const [id = ''] = await world.admitted();
    order.push(names.get(id) ?? '');
    expect((await world.admission.begin(world.holder(id), 'worker-gpu')).status).toBe('run');
    await world.admission.finish(world.holder(id), { outcome: 'done' });
    await world.check();
  }
  expect(countOf(order.slice(1), 'one')).toBe(10);
});

test('virtual time never runs backwards: a newcomer joins behind the pack', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  await fill(world, names, 'steady', 12, { user: 'steady', cost: 100 });
  const costly = await world.add({ user: 'changes', cost: 1_000 });
  await fill(world, names, 'changes', 1, { user: 'changes', cost: 1 });
  for (let i = 0; i < 8; i++) await world.end((await world.admitted())[0] ?? '');
  // Its head goes, the next one is cheap: its tag is now far below virtual time, and it is next.
  await world.admission.cancel(costly, 'test');
  await world.end((await world.admitted())[0] ?? '');
  expect(names.get((await world.admitted())[0] ?? '')).toBe('changes');
  // Who comes now starts at virtual time, not where that request was.
  await fill(world, names, 'new', 3, { user: 'new', cost: 100 });
  const order = await world.drain(names);
  expect(order.slice(0, 4)).toEqual(['changes', 'steady', 'new', 'steady']);
});

test('debt stays while its key is idle', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  const first = await world.add({ user: 'debtor', cost: 100 });
  await fill(world, names, 'other', 20, { user: 'other', cost: 100 });
  // Cost ten times what was charged, and the key is idle now.
  await world.end(first, 1_000);
  await fill(world, names, 'debtor', 1, { user: 'debtor', cost: 100 });
  const order = await world.drain(names);
  expect(order.indexOf('debtor')).toBeGreaterThanOrEqual(9);
  expect(order.indexOf('debtor')).toBeLessThanOrEqual(11);
});

test('a blocked workload comes back next in line, with nothing saved up', async () => {
  const world = await newWorld();
  const perLabel = { tier: 1 };
  await world.policies(policyDocument({ max: 2, perLabel }));
  const names = new Map<string, string>();
  const capped = { workload: 'capped', labels: { tier: 'capped' } };
  const blocker = await world.add(capped);
  await fill(world, names, 'capped', 20, capped);
  await fill(world, names, 'a', 40, { workload: 'a' });
  await fill(world, names, 'b', 40, { workload: 'b' });
  for (let i = 0; i < 30; i++) {
    await world.end((await world.admitted()).find((id) => id !== blocker) ?? '');
    await world.check();
  }
  // Without a cap from now on, all three share: the capped one has no thirty turns to make up for.
  await world.policies(policyDocument({ max: 1 }));
  await world.end(blocker);
  const order: string[] = [];
  for (let i = 0; i < 18; i++) {
    const [holder = ''] = await world.admitted();
    await world.end(holder);
    const [next = ''] = await world.admitted();
    order.push(names.get(next) ?? '');
  }
  expect(countOf(order, 'capped')).toBeGreaterThanOrEqual(5);
  expect(countOf(order, 'capped')).toBeLessThanOrEqual(8);
});

test('a held request that is keyed anew joins like any other: a workload that was passed begins anew', async () => {
  const world = await newWorld();
  await world.pool('gpu', 1);
  await world.policies(policyDocument({ max: 10 }));
  const large = await world.add({ user: 'a', cost: 300, pool: 'gpu' });
  expect(await world.state(large)).toBe('admitted');
  await world.policies(policyDocument({ max: 10, perLabel: { user_id: 5 } }));
  const small = await world.add({ user: 'b', cost: 1, pool: 'gpu' });
  // Nobody begins it: it waits again, behind the tag of the smaller one.
  await world.beat('worker-gpu', { gpu: 1 });
  await world.pass(6_000);
  expect(await world.state(small)).toBe('admitted');
  expect(await world.state(large)).toBe('waiting');
  await world.check();
});
