/** The life of a flow: whose it is, when it ends, and limits that let nobody wait. */
import { expect, test } from 'vitest';
import { newWorld, policyDocument } from './world.ts';

const keep = (id: string) => ({ id, heartbeat: false });
const beat = (id: string) => ({ id, heartbeat: true });

test('a flow that waited ends with its gateway until its caller has heard of it, and then no more', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 2 }));
  await world.admission.sweep({ id: 'g1', kind: 'gateway' });
  const atOnce = [await world.add({ owner: 'g1' }), await world.add({ owner: 'g1' })];
  const heard = await world.add({ owner: 'g1' });
  const unheard = await world.add({ owner: 'g1' });
  const waiting = await world.add({ owner: 'g1' });
  for (const id of atOnce) await world.end(id);
  expect(await world.admission.keepFlow(keep(heard))).toEqual({
    id: heard,
    status: 'kept',
    lease_ms: 60_000,
    slots: true,
  });
  await world.admission.sweep({ id: 'g1', kind: 'gateway' }, true);
  expect(await world.state(heard)).toBe('admitted');
  expect(await world.state(unheard)).toBe('cancelled');
  expect(await world.state(waiting)).toBe('cancelled');
  expect(await world.end(heard)).toEqual({ status: 'ended', state: 'done' });
  expect(await world.end(heard)).toEqual({ status: 'already', state: 'done' });
  await world.check();
});

test('a flow that is admitted at once does not end with its gateway', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  await world.admission.sweep({ id: 'g1', kind: 'gateway' });
  const id = await world.add({ owner: 'g1' });
  await world.admission.sweep({ id: 'g1', kind: 'gateway' }, true);
  expect(await world.state(id)).toBe('admitted');
  await world.check();
});

test('from its first heartbeat on a flow needs more of them', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1, inflight: '60s' }));
  const id = await world.add();
  const next = await world.add();
  await world.pass(20_000);
  expect(await world.admission.keepFlow(beat(id))).toMatchObject({ lease_ms: 10_000 });
  for (let beats = 0; beats < 2; beats++) {
    await world.pass(9_000);
    expect(await world.admission.keepFlow(beat(id))).toMatchObject({ status: 'kept' });
  }
  await world.pass(9_999);
  expect(world.due).toBe(world.nowMs + 1);
  expect(await world.state(next)).toBe('waiting');
  await world.pass(1);
  expect((await world.admission.inspectRequest(id)).ended).toMatchObject({
    state: 'expired',
    code: 'expired',
    message: 'its heartbeat stopped',
  });
  expect(await world.state(next)).toBe('admitted');
  expect(await world.admission.keepFlow(beat(id))).toEqual({ id, status: 'lost' });
  expect((await world.end(id)).status).toBe('already');
  await world.check();
});

test('a heartbeat never carries a flow past the max inflight duration', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1, inflight: '15s' }));
  const id = await world.add();
  await world.pass(8_000);
  expect(await world.admission.keepFlow(beat(id))).toMatchObject({ lease_ms: 7_000 });
  await world.pass(7_000);
  expect(await world.state(id)).toBe('expired');
  await world.check();
});

test('heartbeats that could not be sent because Redis was away end no flow', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1, inflight: '600s' }));
  const id = await world.add();
  await world.admission.keepFlow(beat(id));
  await world.admission.sweep();
  world.nowMs += 30_000;
  await world.admission.sweep();
  expect(await world.state(id)).toBe('admitted');
  expect(await world.admission.keepFlow(beat(id))).toMatchObject({ status: 'kept' });
  await world.pass(10_000);
  expect(await world.state(id)).toBe('expired');
  await world.check();
});

test('a late heartbeat or end counts as long as no sweep has ended the flow', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 2, inflight: '600s' }));
  const [kept, ended] = [await world.add(), await world.add()];
  for (const id of [kept, ended]) await world.admission.keepFlow(beat(id));
  await world.admission.sweep();
  world.nowMs += 30_000;
  expect(await world.admission.keepFlow(beat(kept))).toMatchObject({ status: 'kept' });
  expect(await world.end(ended)).toEqual({ status: 'ended', state: 'done' });
  await world.admission.sweep();
  expect(await world.state(kept)).toBe('admitted');
  await world.check();
});

test('only flows are kept, and only admitted ones', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 2 }));
  await world.pool('gpu', 2);
  const prompt = await world.add({ pool: 'gpu' });
  await world.admission.begin(world.holder(prompt), 'worker-gpu');
  await world.add();
  const waiting = await world.add();
  const lost = await Promise.all(
    [prompt, waiting, world.newId()].map((id) => world.admission.keepFlow(beat(id))),
  );
  expect(lost.map(({ status }) => status)).toEqual(['lost', 'lost', 'lost']);
  await world.check();
});

test('as many hold slots, or run without a limit, as may; then one more is refused', async () => {
  const world = await newWorld({ heldLimit: 2 });
  const first = await world.add();
  await world.add();
  expect(await world.submit({})).toMatchObject({ reason: 'queue_full', limiter: 'held' });
  await world.end(first);
  await world.add();
  await world.check();
});

test('a limit that refuses lets nobody wait who finds it full', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 2, perLabel: { user_id: 1 } }));
  const refusing = ['test.user_id=u'];
  const first = await world.add({ user: 'u', refusing });
  expect(await world.submit({ user: 'u', refusing })).toEqual({
    status: 'rejected',
    reason: 'rate_limited',
    limiter: 'test.user_id=u',
    retry_after_ms: 1_000,
  });
  // Of those that it needs only this one refuses.
  await world.add({ user: 'v' });
  const waits = await world.add({ user: 'w', refusing: ['test.user_id=w'] });
  expect(await world.state(waits)).toBe('waiting');
  await world.end(first);
  expect(await world.state(waits)).toBe('admitted');
  await world.check();
});
