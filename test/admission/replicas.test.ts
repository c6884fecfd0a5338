/** The pool: who may be sent a prompt, how many more, and who finds out. */

import { expect, test } from 'vitest';
import type { Holder, ReplicaGiven } from '../../src/admission/index.ts';
import { domainKey, nodeChannel } from '../../src/admission/keys.ts';
import { newWorld, policyDocument, type World } from './world.ts';

const minute = 60_000;

const probe = {
  path: '/v1/chat/completions',
  post_data: '{"model":"mixtral"}',
  initial_delay_ms: 20 * minute,
  timeout_ms: 3_000,
  period_ms: 10_000,
  success_threshold: 1,
  failure_threshold: 1,
};

function replica(id: string, more: Partial<ReplicaGiven> = {}): ReplicaGiven {
  return { id, url: `http://${id}:8000`, protocol: 'openai', max_inflight: 2, ...more };
}

function probed(more: Partial<typeof probe> = {}): Pick<ReplicaGiven, 'probe'> {
  return { probe: JSON.stringify({ ...probe, ...more }) };
}

/** A pool `gpu` with these replicas, and a worker that could take more than they. */
async function poolOf(...replicas: ReplicaGiven[]): Promise<World> {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 100 }));
  await world.admission.configure({ replicas: { gpu: replicas } });
  await world.beat('w1', { gpu: 32 });
  return world;
}

async function known(world: World, id: string) {
  const { replicas, inFlight } = await world.admission.inspectDomain();
  const found = replicas.find((one) => one.id === id);
  return found && { ...found, in_flight: inFlight[`replica:${id}`] ?? 0 };
}

/** Time passes, and the worker is there. */
async function pass(world: World, ms: number, holders: readonly Holder[] = []): Promise<void> {
  for (let left = ms; left > 0; left -= 1_000) {
    await world.pass(Math.min(left, 1_000));
    await world.beat('w1', { gpu: 32 });
    await world.admission.renew(holders);
  }
}

/** What the pool takes now. */
async function limit(world: World): Promise<number> {
  return (await world.admission.inspectDomain()).limits['pool:gpu'] ?? 0;
}

let tokens = 0;

/** A prompt that runs: its holder and where. */
async function run(world: World, more: { cost?: number } = {}) {
  const id = await world.add({ pool: 'gpu', body: '{}', ...more });
  return begin(world, id);
}

async function begin(world: World, id: string) {
  tokens += 1;
  const { attempt } = await world.record(id);
  const holder = world.holder(id, attempt, `token ${tokens}`);
  const begun = await world.admission.begin(holder, 'w1');
  if (begun.status !== 'run') throw new Error(`${id} did not run: ${begun.status}`);
  return { ...holder, replica: begun.replica.id };
}

/** The orders to probe that a worker gets, in the order in which it gets them. */
async function orders(world: World, worker: string) {
  const heard: { id: string; probe: { number: number; url: string } }[] = [];
  const subscriber = world.redis.duplicate();
  await subscriber.subscribe(nodeChannel(world.domain, worker));
  subscriber.on('message', (_, text: string) => heard.push(...JSON.parse(text)));
  const published = async () => {
    // What was published before this was answered has arrived.
    await subscriber.ping();
    // Orders to abort come on the same channel.
    return heard.splice(0).filter((order) => order.probe !== undefined);
  };
  return { published, stop: () => subscriber.disconnect() };
}

const failed = {
  outcome: 'retry',
  code: 'upstream_failed',
  replicaDownMs: 5_000,
  isSure: true,
} as const;

test('a replica with a probe takes nothing until it is answered, and then at once', async () => {
  const world = await poolOf();
  const w1 = await orders(world, 'w1');
  await world.admission.replicas.put('gpu', replica('r1', probed()));
  expect(await known(world, 'r1')).toMatchObject({ state: 'ready', health: 'starting' });
  const waiting = await world.add({ pool: 'gpu' });
  expect(await world.state(waiting)).toBe('waiting');

  await world.beat('w1', { gpu: 32 });
  const [order] = await w1.published();
  expect(order).toMatchObject({
    id: 'r1',
    probe: { url: 'http://r1:8000', path: probe.path, post_data: probe.post_data },
  });
  const result = { id: 'r1', probe: order?.probe.number ?? 0, result: { ok: true } } as const;
  expect(await world.admission.replicas.probed(result)).toBe('done');
  expect(await known(world, 'r1')).toMatchObject({ health: 'up' });
  expect(await world.state(waiting)).toBe('admitted');
  // The same answer again is nobody's.
  expect(await world.admission.replicas.probed(result)).toBe('stale');
  w1.stop();
});

test('failures before the initial delay mean that it starts, after it that it is down', async () => {
  const world = await poolOf(replica('r1', probed({ initial_delay_ms: 25_000 })));
  const w1 = await orders(world, 'w1');
  const answer = async (ok: boolean) => {
    const [order] = await w1.published();
    const number = order?.probe.number ?? -1;
    const result = ok ? ({ ok } as const) : ({ ok, reason: 'ECONNREFUSED' } as const);
    expect(await world.admission.replicas.probed({ id: 'r1', probe: number, result })).toBe('done');
  };
  const next = async () => {
    world.nowMs += 10_000;
    await world.beat('w1', { gpu: 32 });
  };
  // Its first probe was told as it joined.
  await next();
  await answer(false);
  expect(await known(world, 'r1')).toMatchObject({ health: 'starting', reason: 'ECONNREFUSED' });
  await next();
  await answer(false);
  expect(await known(world, 'r1')).toMatchObject({ health: 'starting' });
  await next();
  await answer(false);
  expect(await known(world, 'r1')).toMatchObject({ health: 'down', reason: 'ECONNREFUSED' });
  await next();
  await answer(true);
  expect(await known(world, 'r1')).toMatchObject({ health: 'up' });
  expect(await limit(world)).toBe(2);
  await next();
  await answer(false);
  expect(await known(world, 'r1')).toMatchObject({ health: 'down' });
  expect(await limit(world)).toBe(0);
  w1.stop();
});

test('thresholds: so many in a row, and one of the other kind begins anew', async () => {
  const world = await poolOf(
    replica('r1', probed({ success_threshold: 2, failure_threshold: 3, initial_delay_ms: 0 })),
  );
  const w1 = await orders(world, 'w1');
  const health: string[] = [];
  for (const ok of [true, false, true, true, false, false, true, false, false, false]) {
    world.nowMs += 10_000;
    await world.beat('w1', { gpu: 32 });
    const [order] = await w1.published();
    const result = ok ? ({ ok } as const) : ({ ok, reason: 'answered 503' } as const);
    await world.admission.replicas.probed({ id: 'r1', probe: order?.probe.number ?? 0, result });
    health.push((await known(world, 'r1'))?.health ?? '');
  }
  expect(health).toEqual([
    ...['starting', 'starting', 'starting', 'up', 'up', 'up', 'up', 'up', 'up', 'down'],
  ]);
  w1.stop();
});

test('a probe that runs the model takes a place like a prompt; where there is none it is left out', async () => {
  const world = await poolOf(replica('r1', { max_inflight: 1, ...probed() }));
  const w1 = await orders(world, 'w1');
  const tick = async () => {
    world.nowMs += 10_000;
    await world.beat('w1', { gpu: 32 });
    return w1.published();
  };
  const [first] = await tick();
  const ok = { ok: true } as const;
  await world.admission.replicas.probed({ id: 'r1', probe: first?.probe.number ?? 0, result: ok });
  expect(await limit(world)).toBe(1);
  const [second] = await tick();
  // While it is asked whether it is ready nobody else may ask it anything.
  expect(await limit(world)).toBe(0);
  const waiting = await world.add({ pool: 'gpu' });
  expect(await world.state(waiting)).toBe('waiting');
  await world.admission.replicas.probed({ id: 'r1', probe: second?.probe.number ?? 0, result: ok });
  expect(await world.state(waiting)).toBe('admitted');
  await begin(world, waiting);
  expect(await tick()).toEqual([]);
  expect(await known(world, 'r1')).toMatchObject({ health: 'up', in_flight: 1 });
  w1.stop();
});

test('a probe that nobody reports gives its place back, and comes again', async () => {
  // Long before the next one would be due.
  const rare = probed({ period_ms: 10 * minute });
  const world = await poolOf(replica('r1', { max_inflight: 1, ...rare }));
  const w1 = await orders(world, 'w1');
  const ok = { ok: true } as const;
  // The first one was told before we listened.
  world.nowMs += probe.timeout_ms + 1_000;
  const [first] = await tellProbe();
  await world.admission.replicas.probed({ id: 'r1', probe: first?.probe.number ?? 0, result: ok });
  world.nowMs += 10 * minute;
  const [lost] = await tellProbe();
  expect(await limit(world)).toBe(0);
  world.nowMs += probe.timeout_ms + 1_000;
  const [again] = await tellProbe();
  expect(again?.probe.number).not.toBe(lost?.probe.number);
  const late = { id: 'r1', probe: lost?.probe.number ?? 0, result: ok };
  expect(await world.admission.replicas.probed(late)).toBe('stale');
  expect(await known(world, 'r1')).toMatchObject({ health: 'up' });
  w1.stop();

  async function tellProbe() {
    await world.beat('w1', { gpu: 32 });
    return w1.published();
  }
});

test('one worker probes a pool; another one takes over within seconds of its last sign of life', async () => {
  const world = await poolOf(replica('r1', probed()));
  const prober = async () => (await world.admission.inspectDomain()).probers.gpu;
  const sweep = (id: string, pools: Record<string, number> = { gpu: 1 }) =>
    world.admission.sweep({ id, kind: 'worker', pools });
  expect((await sweep('w2')).probes).toEqual([]);
  expect((await sweep('w1')).probes).toEqual(['gpu']);
  const w2 = await orders(world, 'w2');
  // From here on the first one is silent.
  let took = 0;
  for (; (await prober()) === 'w1'; took += 1_000) {
    world.nowMs += 1_000;
    await sweep('w2');
  }
  expect(took).toBeLessThanOrEqual(6_000);
  expect(await prober()).toBe('w2');
  // What the first one was told is asked anew at once.
  expect((await w2.published()).map(({ id }) => id)).toEqual(['r1']);
  // One that comes back leaves it where it is, and one that goes in order hands it on at once.
  expect((await sweep('w1')).probes).toEqual([]);
  expect((await sweep('w2', {})).probes).toEqual([]);
  expect((await sweep('w1')).probes).toEqual(['gpu']);
  w2.stop();
});

test('the circuit: down, then one prompt, whose end says whether it is up or down for longer', async () => {
  const world = await poolOf(replica('r1'));
  const first = await run(world);
  expect(await world.admission.finish(first, failed)).toMatchObject({ status: 'retried' });
  expect(await known(world, 'r1')).toMatchObject({
    health: 'down',
    down_until: world.nowMs + 5_000,
  });
  expect(await limit(world)).toBe(0);
  await pass(world, 5_000);
  expect(await known(world, 'r1')).toMatchObject({ health: 'trial' });
  // Only one of two.
  expect(await limit(world)).toBe(1);
  await world.admission.cancel(first.id, 'test');
  const trial = await run(world);
  const other = await world.add({ pool: 'gpu' });
  expect(await world.state(other)).toBe('waiting');
  await world.admission.finish(trial, failed);
  expect(await known(world, 'r1')).toMatchObject({
    health: 'down',
    down_until: world.nowMs + 10_000,
  });
  await pass(world, 10_000);
  await world.check();
  const [admitted = ''] = await world.admitted();
  const again = await begin(world, admitted);
  await world.admission.finish(again, { outcome: 'done' });
  expect(await known(world, 'r1')).toMatchObject({ health: 'up' });
  expect(await limit(world)).toBe(2);
  await world.check();
});

test('many that fail at a time are one failure; those that began before it was found out say nothing new', async () => {
  const world = await poolOf(replica('r1', { max_inflight: 3 }));
  const prompts = [await run(world), await run(world), await run(world)];
  for (const prompt of prompts) await world.admission.finish(prompt, failed);
  expect(await known(world, 'r1')).toMatchObject({ down_until: world.nowMs + 5_000 });
});

test('a prompt that breaks off everywhere takes none of its replicas down, and is a dead letter', async () => {
  const world = await poolOf(replica('r1'), replica('r2'), replica('r3'));
  const id = await world.add({ pool: 'gpu', body: 'the poison', labels: { user_id: 'u1' } });
  const at: string[] = [];
  for (let attempt = 1; attempt <= 3; attempt++) {
    const prompt = await begin(world, id);
    at.push(prompt.replica);
    const broken = { ...failed, isSure: false, message: `no answer ${attempt}` };
    await world.admission.finish(prompt, broken);
  }
  expect(at).toEqual(['r1', 'r2', 'r3']);
  expect(await world.state(id)).toBe('failed');
  const health = ['r1', 'r2', 'r3'].map(async (one) => (await known(world, one))?.health);
  expect(await Promise.all(health)).toEqual(['up', 'up', 'up']);
  const { letters, total } = await world.admission.deadLetters.list(0, 10);
  expect(total).toBe(1);
  const story = at.map((one, index) => ({
    attempt: index + 1,
    replica: one,
    worker: 'w1',
    at: world.nowMs,
    code: 'upstream_failed',
    message: `no answer ${index + 1}`,
    failed_there: true,
  }));
  expect(letters).toEqual([
    {
      id,
      control_point: 'prompt',
      labels: { user_id: 'u1' },
      pool: 'gpu',
      cost: 100,
      attempt: 3,
      created_at: world.nowMs,
      died_at: world.nowMs,
      code: 'upstream_failed',
      message: 'no answer 3',
      story,
      bytes: 'the poison'.length,
    },
  ]);
  expect(await world.admission.deadLetters.read(id)).toMatchObject({ body: 'the poison' });
  await world.check();
});

test('what breaks off may be the prompt’s doing: it takes two in a row, of two prompts', async () => {
  const world = await poolOf(replica('r1', { max_inflight: 4 }));
  const broken = { ...failed, isSure: false };
  const health = async () => (await known(world, 'r1'))?.health;
  const breaks = async (prompt: Holder) => {
    expect(await world.admission.finish(prompt, broken)).toMatchObject({ status: 'retried' });
    await world.admission.cancel(prompt.id, 'test');
  };
  await breaks(await run(world));
  expect(await health()).toBe('up');
  expect(await limit(world)).toBe(4);
  // One that is answered in between says that it serves.
  await world.admission.finish(await run(world), { outcome: 'done' });
  await breaks(await run(world));
  expect(await health()).toBe('up');
  await breaks(await run(world));
  expect(await health()).toBe('down');
  // A trial is what finds out: one is enough.
  await pass(world, 5_000);
  await breaks(await run(world));
  expect(await known(world, 'r1')).toMatchObject({
    health: 'down',
    down_until: world.nowMs + 10_000,
  });
});

test('a prompt that breaks off a second time says no more of its replica', async () => {
  const world = await poolOf(replica('r1'));
  const { id } = await run(world);
  const broken = { ...failed, isSure: false };
  const { attempt } = await world.record(id);
  await world.admission.finish({ id, attempt, token: `token ${tokens}` }, broken);
  await world.admission.finish(await begin(world, id), broken);
  expect(await known(world, 'r1')).toMatchObject({ health: 'up' });
});

test('the model’s own answer to a probe ends a rest; that a page is served does not', async () => {
  for (const post_data of [probe.post_data, undefined]) {
    const spec = JSON.stringify({ ...probe, post_data });
    const world = await poolOf(replica('r1', { probe: spec }));
    const w1 = await orders(world, 'w1');
    const answer = async () => {
      await pass(world, 1_000);
      for (let waited = 1; ; waited++) {
        const [order] = await w1.published();
        if (order) {
          const { number } = order.probe;
          await world.admission.replicas.probed({ id: 'r1', probe: number, result: { ok: true } });
          return;
        }
        expect(waited).toBeLessThan(20);
        await pass(world, 1_000);
      }
    };
    await answer();
    await world.admission.finish(await run(world), { ...failed, replicaDownMs: 60_000 });
    expect(await known(world, 'r1')).toMatchObject({ health: 'down' });
    await answer();
    const health = post_data === undefined ? 'down' : 'up';
    expect(await known(world, 'r1')).toMatchObject({ health });
    w1.stop();
  }
});

test('a prompt that failed at one replica waits for another that is full, and burns no attempts', async () => {
  const world = await poolOf(replica('bad', { max_inflight: 2 }), replica('full'));
  const [first, , third] = [await run(world), await run(world), await run(world)];
  expect([first.replica, third.replica]).toEqual(['bad', 'bad']);
  const busy = [await run(world)];
  const broken = { ...failed, isSure: false };
  await world.admission.finish(first, broken);
  const { attempt } = await world.record(first.id);
  const begun = await world.admission.begin(world.holder(first.id, attempt, 'again'), 'w1');
  expect(begun).toEqual({ status: 'stale', state: 'admitted' });
  // Nor does anybody offer it, until a prompt leaves a replica.
  const offers = () => world.dispatched.filter(({ id }) => id === first.id).length;
  const before = offers();
  await pass(world, 3_000, [third, ...busy]);
  expect(offers()).toBe(before);
  for (const one of busy) await world.admission.finish(one, { outcome: 'done' });
  expect(offers()).toBe(before + 1);
  expect((await begin(world, first.id)).replica).toBe('full');
  await world.check();
});

test('a prompt whose worker stops, or dies, or whose replica drains may go where it was', async () => {
  const world = await poolOf(
    replica('big', { max_inflight: 8 }),
    replica('small', { max_inflight: 1 }),
  );
  const prompts = [];
  for (let count = 0; count < 9; count++) prompts.push(await run(world));
  const atBig = prompts.filter((one) => one.replica === 'big');
  expect(atBig.length).toBe(8);
  // Stopped in order, as a rolling restart does it.
  for (const one of atBig) {
    const stopped = {
      outcome: 'retry',
      code: 'unavailable',
      message: 'its worker was stopped',
    } as const;
    await world.admission.finish(one, stopped);
  }
  for (const one of atBig) expect((await begin(world, one.id)).replica).toBe('big');
  // And killed.
  await pass(world, 10_000);
  const again = [];
  for (const { id } of prompts) again.push((await begin(world, id)).replica);
  expect(again.filter((at) => at === 'big').length).toBe(8);
  expect(await limit(world)).toBe(9);
  await world.check();
});

test('one that waits for another replica is offered as soon as there may be one, and loses nothing by it', async () => {
  for (const event of ['joins', 'is ready', 'ends its rest'] as const) {
    const world = await poolOf(replica('bad'), replica('full', { max_inflight: 1 }), replica('r3'));
    const { replicas } = world.admission;
    if (event === 'joins') await replicas.remove('r3');
    if (event === 'is ready') await replicas.drain('r3');
    const holders: Holder[] = [];
    const ran = [await run(world), await run(world)];
    holders.push(...ran);
    const prompt = ran.find((one) => one.replica === 'bad') ?? (await run(world));
    if (!holders.includes(prompt)) holders.push(prompt);
    if (event === 'ends its rest') {
      const third = await run(world);
      expect(third.replica).toBe('r3');
      await world.admission.finish(third, failed);
      await world.admission.cancel(third.id, 'test');
    }
    await world.admission.finish(prompt, { ...failed, isSure: false });
    const { attempt } = await world.record(prompt.id);
    await world.admission.begin(world.holder(prompt.id, attempt, `later ${event}`), 'w1');
    const others = holders.filter((one) => one !== prompt);
    const offers = () => world.dispatched.filter(({ id }) => id === prompt.id).length;
    const before = offers();
    if (event !== 'ends its rest') await pass(world, 3_000, others);
    expect(offers(), event).toBe(before);
    if (event === 'joins') await replicas.put('gpu', replica('r3'));
    if (event === 'is ready') await replicas.ready('r3');
    if (event === 'ends its rest') await pass(world, 5_000, others);
    expect(offers(), event).toBe(before + 1);
    expect((await begin(world, prompt.id)).replica).toBe('r3');
    await world.check();
  }
});

test('one that waits for another replica does not wait for good: then it goes where there is room', async () => {
  const world = await poolOf(replica('bad'), replica('full', { max_inflight: 1 }));
  const [a, b] = [await run(world), await run(world)];
  const [prompt, busy] = a.replica === 'bad' ? [a, b] : [b, a];
  const failedOnce = { outcome: 'retry', code: 'upstream_failed' } as const;
  await world.admission.finish(prompt, failedOnce);
  const later = async (token: string) => {
    const { attempt } = await world.record(prompt.id);
    return world.admission.begin(world.holder(prompt.id, attempt, token), 'w1');
  };
  expect(await later('first')).toMatchObject({ status: 'stale' });
  // Delivered a second time it is no other.
  expect(await later('second')).toMatchObject({ status: 'stale' });
  await pass(world, 5_000, [busy]);
  expect((await begin(world, prompt.id)).replica).toBe('bad');
  await world.check();
});

test('one that waited for another replica leaves nothing behind, however that ends', async () => {
  for (const end of ['cancelled', 'put back', 'runs', 'expires'] as const) {
    const world = await poolOf(replica('bad'), replica('full', { max_inflight: 1 }));
    const [a, b] = [await run(world), await run(world)];
    const [prompt, busy] = a.replica === 'bad' ? [a, b] : [b, a];
    await world.admission.finish(prompt, { outcome: 'retry', code: 'upstream_failed' });
    const { attempt } = await world.record(prompt.id);
    const holder = world.holder(prompt.id, attempt, `deferred ${end}`);
    expect(await world.admission.begin(holder, 'w1')).toMatchObject({ status: 'stale' });
    const deferred = () => world.redis.hget(domainKey(world.domain, 'meta'), 'deferred gpu');
    expect(await deferred()).toContain(prompt.id);
    if (end === 'cancelled') await world.admission.cancel(prompt.id, 'test');
    if (end === 'put back') {
      // Whoever drains both leaves no room at all; BullMQ delivers it once more.
      await world.admission.replicas.drain('bad');
      await world.admission.replicas.drain('full');
      const { attempt: last } = await world.record(prompt.id);
      const again = world.holder(prompt.id, last, 'again');
      expect(await world.admission.begin(again, 'w1')).toEqual({ status: 'put_back' });
    }
    if (end === 'runs') {
      await world.admission.finish(busy, { outcome: 'done' });
      expect((await begin(world, prompt.id)).replica).toBe('full');
    }
    if (end === 'expires') await pass(world, 60_000);
    expect(await deferred(), end).toBeNull();
    await world.admission.replicas.ready('bad');
    await world.admission.replicas.ready('full');
    await world.check();
  }
});

test('another machine under the same name has a clean record', async () => {
  const world = await poolOf(replica('spot'));
  const old = [await run(world), await run(world)];
  world.nowMs += 1_000;
  await world.admission.replicas.put('gpu', replica('spot', { url: 'http://new:8000' }));
  for (const one of old) await world.admission.finish(one, failed);
  expect(await known(world, 'spot')).toMatchObject({ health: 'up' });
});

test('prompts from before a circuit opened say nothing when it has closed', async () => {
  const world = await poolOf(replica('r1', { max_inflight: 4 }));
  const hanging = [await run(world), await run(world)];
  const first = await run(world);
  world.nowMs += 1_000;
  const later = await run(world);
  await world.admission.finish(later, failed);
  await world.admission.cancel(later.id, 'test');
  await world.admission.cancel(first.id, 'test');
  await world.admission.finish(first, { outcome: 'cancelled' });
  await pass(world, 5_000, hanging);
  await world.admission.finish(await run(world), { outcome: 'done' });
  expect(await known(world, 'r1')).toMatchObject({ health: 'up' });
  for (const one of hanging) await world.admission.finish(one, failed);
  expect(await known(world, 'r1')).toMatchObject({ health: 'up' });
});

test('a replica goes to another pool when the last prompt of its own has left it', async () => {
  const world = await poolOf(replica('r1'));
  const { replicas } = world.admission;
  const prompt = await run(world);
  expect(await replicas.put('other', replica('r1'))).toEqual({ status: 'in_use', pool: 'gpu' });
  const { busy } = await world.admission.configure({ replicas: { other: [replica('r1')] } });
  expect(busy).toEqual(['r1']);
  expect(await known(world, 'r1')).toMatchObject({ pool: 'gpu', in_flight: 1 });
  await world.admission.finish(prompt, { outcome: 'done' });
  expect(await replicas.put('other', replica('r1'))).toEqual({ status: 'known' });
  expect(await known(world, 'r1')).toMatchObject({ pool: 'other' });
  expect(await limit(world)).toBe(0);
});

test('a drain that is given more time moves nothing yet', async () => {
  const world = await poolOf(
    replica('r1', { max_inflight: 1 }),
    replica('r2', { max_inflight: 1 }),
  );
  const prompt = await run(world);
  await world.admission.replicas.drain(prompt.replica, 1_000);
  await world.admission.replicas.drain(prompt.replica, 8_000);
  await pass(world, 7_000, [prompt]);
  expect(await world.record(prompt.id)).toMatchObject({ state: 'running', attempt: 1 });
  await pass(world, 1_000, [prompt]);
  expect(await world.record(prompt.id)).toMatchObject({ state: 'admitted', attempt: 2 });
});

test('a prompt that never reached its replica is not to blame: it waits until there is one', async () => {
  const world = await poolOf(replica('r1'), replica('r2'));
  const id = await world.add({ pool: 'gpu', body: 'x' });
  const refused = { ...failed, code: 'unavailable', message: 'ECONNREFUSED' } as const;
  for (const at of ['r1', 'r2']) {
    const prompt = await begin(world, id);
    expect(prompt.replica).toBe(at);
    await world.admission.finish(prompt, refused);
  }
  // Both are down, and it was not even their fault: nobody begins it until one has had its rest.
  const { attempt } = await world.record(id);
  const nowhere = await world.admission.begin(world.holder(id, attempt, 'nobody'), 'w1');
  expect(nowhere).toEqual({ status: 'put_back' });
  await pass(world, 5_000);
  expect((await begin(world, id)).replica).toMatch(/^r[12]$/);
  expect((await world.record(id)).failures ?? 0).toBe(0);
});

test('least in flight relative to capacity, then the cheaper, then by name', async () => {
  const world = await poolOf(
    replica('a', { max_inflight: 4, price: 3 }),
    replica('b', { max_inflight: 2, price: 1 }),
    replica('c', { max_inflight: 2, price: 1 }),
  );
  const order: string[] = [];
  for (let count = 0; count < 8; count++) order.push((await run(world)).replica);
  // At equal shares b and c before a; then whoever has the smallest share.
  expect(order).toEqual(['b', 'c', 'a', 'a', 'b', 'c', 'a', 'a']);
  expect(await limit(world)).toBe(8);
  await world.check();
});

test('affinity: the same key meets the same replica, unless that has more than its share', async () => {
  const ids = ['a', 'b', 'c', 'd'];
  const world = await poolOf(...ids.map((id) => replica(id, { max_inflight: 8 })));
  const place = async (key: string) => {
    const id = await world.add({ pool: 'gpu', affinity: `${key}:1.25` });
    return begin(world, id);
  };
  const homes = new Map<string, string>();
  for (let key = 0; key < 32; key++) {
    const prompt = await place(`k${key}`);
    homes.set(`k${key}`, prompt.replica);
    await world.admission.finish(prompt, { outcome: 'done' });
  }
  // They spread, and each comes home again.
  expect(new Set(homes.values()).size).toBe(4);
  for (const [key, home] of homes) {
    const prompt = await place(key);
    expect(prompt.replica, key).toBe(home);
    await world.admission.finish(prompt, { outcome: 'done' });
  }
  // One key alone fills no replica: of n that run none has more than ceil(1.25 * n / 4).
  const counts = new Map<string, number>();
  for (let running = 1; running <= 20; running++) {
    const { replica: at } = await place('k0');
    counts.set(at, (counts.get(at) ?? 0) + 1);
    expect(Math.max(...counts.values())).toBeLessThanOrEqual(Math.ceil((1.25 * running) / 4));
  }
  // And a replica that goes takes only its own keys with it.
  for (const id of await world.admitted()) await world.admission.cancel(id, 'test');
});

test('draining: no new prompts, those that run are moved at the deadline on the same slots', async () => {
  const world = await poolOf(replica('r1'), replica('r2'));
  const stays = await run(world);
  const moves = await run(world);
  expect([stays.replica, moves.replica]).toEqual(['r1', 'r2']);
  expect(await world.admission.replicas.drain('r2', 30_000)).toBe('done');
  // What runs there holds a place, and nobody else's.
  expect(await limit(world)).toBe(3);
  const more = [await run(world)];
  expect(more[0]?.replica).toBe('r1');
  const waiting = await world.add({ pool: 'gpu' });
  expect(await world.state(waiting)).toBe('waiting');
  const { admitted_at } = await world.record(moves.id);
  await pass(world, 29_000, [stays, moves, ...more]);
  expect(await world.record(moves.id)).toMatchObject({ state: 'running', attempt: 1 });
  await pass(world, 1_000);
  const { state, attempt, admitted_at: since } = await world.record(moves.id);
  expect({ state, attempt, since }).toEqual({ state: 'admitted', attempt: 2, since: admitted_at });
  expect(await known(world, 'r2')).toMatchObject({ state: 'draining', in_flight: 0 });
  expect((await world.record(moves.id)).story).toMatchObject([
    { replica: 'r2', code: 'unavailable' },
  ]);
  await world.check();
  // Back again, the place is free at once.
  expect(await world.admission.replicas.ready('r2')).toBe('done');
  expect(await world.state(waiting)).toBe('admitted');
});

test('removed: gone at once when it is idle, with its last prompt when it is not', async () => {
  const world = await poolOf(replica('r1'), replica('r2'));
  const prompt = await run(world);
  expect(await world.admission.replicas.remove('r2')).toBe('done');
  expect(await known(world, 'r2')).toBeUndefined();
  expect(await world.admission.replicas.remove('r1')).toBe('done');
  expect(await known(world, 'r1')).toMatchObject({ state: 'leaving', in_flight: 1 });
  expect(await world.admission.replicas.remove('r1')).toBe('unknown');
  expect(await limit(world)).toBe(1);
  expect(await world.admission.finish(prompt, { outcome: 'done' })).toMatchObject({
    status: 'ended',
  });
  expect(await known(world, 'r1')).toBeUndefined();
  expect(await limit(world)).toBe(0);
  await world.check();
});

test('a replica that does not renew itself goes; one that does keeps what is known of it', async () => {
  const world = await poolOf();
  const { replicas } = world.admission;
  const given = replica('r1', { ttl_ms: 10_000, ...probed() });
  expect(await replicas.put('gpu', given)).toEqual({ status: 'new' });
  const w1 = await orders(world, 'w1');
  await world.beat('w1', { gpu: 32 });
  const [order] = await w1.published();
  const number = order?.probe.number ?? 0;
  await replicas.probed({ id: 'r1', probe: number, result: { ok: true } });
  await replicas.drain('r1');
  for (let renewals = 0; renewals < 3; renewals++) {
    await pass(world, 9_000);
    expect(await replicas.put('gpu', given)).toEqual({ status: 'known' });
  }
  // An operator's word stands, and it need not prove itself anew.
  expect(await known(world, 'r1')).toMatchObject({ state: 'draining', health: 'up' });
  await pass(world, 10_000);
  expect(await known(world, 'r1')).toBeUndefined();
  // Under another address it is another one.
  await replicas.put('gpu', given);
  expect(await known(world, 'r1')).toMatchObject({ state: 'ready', health: 'starting' });
  w1.stop();
});

test('after a time in which Redis was away, no replica is taken for gone before it could be put again', async () => {
  const world = await poolOf();
  await world.admission.replicas.put('gpu', replica('r1', { ttl_ms: 5_000 }));
  world.nowMs += 60_000;
  await world.admission.sweep();
  expect(await known(world, 'r1')).toMatchObject({
    state: 'ready',
    expires_at: world.nowMs + 10_000,
  });
  await pass(world, 9_000);
  expect(await known(world, 'r1')).toBeDefined();
  await pass(world, 1_000);
  expect(await known(world, 'r1')).toBeUndefined();
});

test('there are a thousand replicas at most; those that are there may change', async () => {
  const world = await poolOf();
  const { replicas } = world.admission;
  const named = (count: number) => replica(`r${count}`, { max_inflight: 1 });
  await replicas.set(
    'gpu',
    Array.from({ length: 999 }, (_, count) => named(count)),
  );
  expect(await replicas.put('gpu', named(999))).toEqual({ status: 'new' });
  expect(await replicas.put('gpu', named(1_000))).toEqual({ status: 'full' });
  expect(await replicas.put('gpu', replica('r5', { max_inflight: 9 }))).toEqual({
    status: 'known',
  });
  await world.admission.sweep({ id: 'w1', kind: 'worker', pools: { gpu: 10_000 } });
  expect(await limit(world)).toBe(1_008);
});

test('a file and DNS have their own replicas, and neither takes away what was put over HTTP', async () => {
  const world = await poolOf(replica('file-1'), replica('file-2'));
  const { replicas } = world.admission;
  await replicas.put('gpu', replica('api-1'));
  await replicas.put('gpu', replica('file-2', { max_inflight: 7 }));
  await replicas.set('gpu', [replica('dns-1'), replica('dns-2')]);
  await replicas.set('gpu', [replica('dns-2'), replica('dns-3')]);
  const ids = async () => (await replicas.list()).map(({ id }) => id).toSorted();
  expect(await ids()).toEqual(['api-1', 'dns-2', 'dns-3', 'file-1', 'file-2']);
  // Another gateway starts, whose file is older.
  await world.admission.configure({ replicas: { gpu: [replica('file-2')] } });
  expect(await ids()).toEqual(['api-1', 'dns-2', 'dns-3', 'file-2']);
  expect(await known(world, 'file-2')).toMatchObject({ max_inflight: 7, source: 'api' });
  await replicas.set('gpu', []);
  expect(await ids()).toEqual(['api-1', 'file-2']);
});

test('a limit that is auto follows its pools, in the same step', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 'auto' }));
  const flows = [await world.add(), await world.add()];
  expect(await world.state(flows[0] ?? '')).toBe('waiting');
  await world.admission.configure({ replicas: { gpu: [replica('r1', { max_inflight: 1 })] } });
  await world.beat('w1', { gpu: 32 });
  expect(await Promise.all(flows.map((id) => world.state(id)))).toEqual(['admitted', 'waiting']);
  await world.admission.replicas.put('gpu', replica('r2', { max_inflight: 1 }));
  expect(await world.state(flows[1] ?? '')).toBe('admitted');
  await world.admission.replicas.remove('r1');
  const { limits } = await world.admission.inspectDomain();
  expect(limits.test).toBe(1);
  await world.check();
});

test('pauses: nobody is admitted, who runs goes on, places are kept, and it ends as it began', async () => {
  const world = await poolOf(replica('r1', { max_inflight: 1 }));
  const running = await run(world);
  const waiting = [await world.add({ pool: 'gpu' }), await world.add({ pool: 'gpu' })];
  await world.pause('prompt', true);
  await world.pause('prompt', true);
  const flow = await world.add();
  await world.admission.finish(running, { outcome: 'done' });
  const states = () => Promise.all([...waiting, flow].map((id) => world.state(id)));
  expect(await states()).toEqual(['waiting', 'waiting', 'waiting']);
  const [waitsFor] = (await world.admission.inspectRequest(flow)).waits_for ?? [];
  expect(waitsFor).toMatchObject({ limiter: 'paused:prompt', limit: 0 });
  await world.check();
  await world.pause('prompt', false);
  expect(await states()).toEqual(['admitted', 'waiting', 'admitted']);
  await world.check();

  await world.admission.pause({ pool: 'gpu' }, true);
  await world.end(flow);
  await world.admission.finish(await begin(world, waiting[0] ?? ''), { outcome: 'done' });
  expect(await world.state(waiting[1] ?? '')).toBe('waiting');
  // Flows take no slot of a pool.
  expect(await world.state(await world.add())).toBe('admitted');
  await world.admission.pause({ pool: 'gpu' }, false);
  expect(await world.state(waiting[1] ?? '')).toBe('admitted');
  await world.check();
});

test('dead letters: as many as may be, the oldest go, and all are gone after a purge', async () => {
  const world = await newWorld({ deadLetters: 3, keepDeadMs: 60_000, maxAttempts: 1 });
  await world.policies(policyDocument({ max: 100 }));
  await world.pool('gpu', 8);
  const ids: string[] = [];
  for (let count = 0; count < 5; count++) {
    world.nowMs += 1_000;
    const prompt = await run(world);
    ids.push(prompt.id);
    await world.admission.finish(prompt, { outcome: 'retry', code: 'upstream_failed' });
  }
  const { deadLetters } = world.admission;
  const listed = async () => (await deadLetters.list(0, 10)).letters.map(({ id }) => id);
  expect(await listed()).toEqual(ids.slice(2).toReversed());
  expect((await deadLetters.list(1, 1)).letters.map(({ id }) => id)).toEqual([ids[3]]);
  expect(await deadLetters.drop([ids[4] ?? '', ids[0] ?? ''])).toBe(1);
  await pass(world, 58_500);
  expect(await listed()).toEqual([ids[3]]);
  expect(await deadLetters.purge()).toBe(1);
  expect(await deadLetters.purge()).toBe(0);
  expect(await listed()).toEqual([]);
  const kept = await world.redis.keys(domainKey(world.domain, 'dead*'));
  expect(kept).toEqual([]);
});
