/** Policies change while prompts run and wait: at once, for every gateway, and nobody is let past. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { expectRefusal } from './errors.ts';
import {
  applied,
  cancelJob,
  load,
  putPolicy,
  quotaValues,
  rateValues,
  removePolicy,
  slotValues,
  startedAt,
  submitJob,
} from './policies.ts';
import { newWorld, policyValues, type World, type WorldOptions } from './world.ts';

/** A world whose replica takes prompts and never answers: each ends when it is cancelled. */
async function hangingWorld(options: WorldOptions = {}): Promise<World> {
  const world = await newWorld(options);
  await world.simulator.setFault({ mode: 'hang' });
  return world;
}

/** Jobs in this order, each at the replica, or in the queue, before the next one is sent. */
async function submitAll(
  world: World,
  labels: readonly Record<string, string>[],
): Promise<string[]> {
  const ids: string[] = [];
  for (const own of labels) ids.push(await submitJob(world, own));
  return ids;
}

const ofUser = (user: string) => ({ user_id: user });
const inUse = { status: 409, code: 'in_use' };

async function stateOf(world: World, id: string): Promise<string | undefined> {
  const { request, ended } = await world.admission.inspectRequest(id);
  return request?.state ?? ended?.state;
}

describe('limits', () => {
  test('raised: who waits is admitted in the same step', async () => {
    const world = await hangingWorld({ max: 1 });
    const ids = await submitAll(world, [{}, {}, {}, {}]);
    expect((await world.view()).waiting).toBe(3);
    await applied(world.url, slotValues({ max: 3 }));
    expect(await world.view()).toMatchObject({ waiting: 1, inFlight: { mistral: 3 } });
    await world.simulator.until((counts) => counts.started === 3);
    expect(startedAt(world)).toEqual(ids.slice(0, 3));
    for (const id of ids.toReversed()) await cancelJob(world, id);
    await world.idle();
  });

  test('lowered: nobody is evicted, and nobody admitted until below', async () => {
    const world = await hangingWorld({ max: 4 });
    const ids = await submitAll(
      world,
      Array.from({ length: 6 }, () => ({})),
    );
    await world.simulator.until((counts) => counts.started === 4);
    await applied(world.url, slotValues({ max: 2 }));
    for (const [index, expected] of [
      { inFlight: { mistral: 3 }, waiting: 2 },
      { inFlight: { mistral: 2 }, waiting: 2 },
      { inFlight: { mistral: 2 }, waiting: 1 },
      { inFlight: { mistral: 2 }, waiting: 0 },
    ].entries()) {
      const before = world.simulator.state();
      expect(before).toMatchObject({ aborted: index, failed: 0 });
      await cancelJob(world, ids[index] ?? '');
      await world.until((view) => view.waiting + (view.inFlight.mistral ?? 0) === 5 - index);
      expect(await world.view()).toMatchObject(expected);
    }
    await world.simulator.until((counts) => counts.started === 6);
    expect(startedAt(world)).toEqual(ids);
    for (const id of ids.slice(4)) await cancelJob(world, id);
    await world.idle();
  });

  test('a limit for each user counts those who run at once, and keeps the order', async () => {
    const world = await hangingWorld({ max: 4 });
    const users = ['u1', 'u1', 'u1', 'u1', 'u1', 'u2', 'u1', 'u2'];
    const [a1, a2, a3, a4, a5, b1, a6, b2] = await submitAll(world, users.map(ofUser));
    await world.simulator.until((counts) => counts.started === 4);
    await applied(world.url, slotValues({ max: 4, perLabel: { user_id: 2 } }));
    expect(await world.view()).toMatchObject({
      inFlight: { mistral: 4, 'mistral.user_id=u1': 4 },
      waiting: 4,
    });
    // Freed one by one: u1 is over its limit, then at it, then has room for one, and one more.
    const running = [a1, a2, a3, a4];
    for (const [index, next] of [b1, b2, a5, a6].entries()) {
      await cancelJob(world, running[index] ?? '');
      await world.simulator.until((counts) => counts.started === 5 + index);
      expect(startedAt(world).at(-1)).toBe(next);
    }
    expect(startedAt(world)).toEqual([...running, b1, b2, a5, a6]);
    expect(world.simulator.state().in_flight_max).toBe(4);
    for (const id of [b1, b2, a5, a6]) await cancelJob(world, id ?? '');
    await world.idle();
  });

  test('raised together with a new limit for each user: nobody is let past the new one', async () => {
    const world = await hangingWorld({ max: 2 });
    const ids = await submitAll(world, ['u1', 'u1', 'u1', 'u1', 'u2'].map(ofUser));
    await applied(world.url, slotValues({ max: 5, perLabel: { user_id: 2 } }));
    await world.simulator.until((counts) => counts.started === 3);
    expect(startedAt(world).toSorted()).toEqual([ids[0], ids[1], ids[4]].toSorted());
    expect(await world.view()).toMatchObject({
      inFlight: { mistral: 3, 'mistral.user_id=u1': 2, 'mistral.user_id=u2': 1 },
      waiting: 2,
    });
    for (const id of ids.toReversed()) await cancelJob(world, id);
    await world.idle();
  });

  test('under load the replica never sees more than the new limits allow', async () => {
    const world = await newWorld({ max: 6, simulator: { speed: 40 } });
    const stop = load(world, 10, 'user_id=u1');
    const watch = async (limiter: string, most: number) => {
      // Who ran before the change may finish; it is kept from then on.
      await world.until((view) => (view.inFlight[limiter] ?? 0) <= most);
      await world.simulator.until((counts) => counts.in_flight <= most);
      world.simulator.reset();
      await world.simulator.until((counts) => {
        return counts.completed >= 40 && counts.in_flight_max >= most;
      });
      expect(world.simulator.state().in_flight_max).toBe(most);
    };
    await watch('mistral', 6);
    await applied(world.url, slotValues({ max: 3 }));
    await watch('mistral', 3);
    await applied(world.url, slotValues({ max: 6, perLabel: { user_id: 2 } }));
    await watch('mistral.user_id=u1', 2);
    await applied(world.url, slotValues({ max: 5 }));
    await watch('mistral', 5);
    expect([...(await stop()).keys()]).toEqual([200]);
    await world.idle();
  });
});

describe('removal', () => {
  test('is refused while requests wait or run under it, and goes through when they are gone', async () => {
    const world = await hangingWorld({ max: 1 });
    await applied(world.url, slotValues({ name: 'second', max: 3 }));
    const [running = '', waiting = ''] = await submitAll(world, [{}, {}]);
    // One gives the order, the other only limits.
    for (const name of ['mistral', 'second']) {
      const refused = await removePolicy(world.url, name);
      expect(await expectRefusal(refused, 'openai', inUse)).toContain('force=true');
    }
    await cancelJob(world, waiting);
    for (const name of ['mistral', 'second']) {
      await expectRefusal(await removePolicy(world.url, name), 'openai', inUse);
    }
    await cancelJob(world, running);
    await world.idle();
    for (const name of ['mistral', 'second']) {
      expect((await removePolicy(world.url, name)).status).toBe(200);
    }
    const { limits } = await world.view();
    expect(Object.keys(limits)).toEqual([`pool:${world.config.domain}`]);
  });

  test('is not held up by requests under others, or that a rate limit let through', async () => {
    const world = await hangingWorld({ max: 1 });
    await applied(world.url, slotValues({ name: 'elsewhere', controlPoint: 'elsewhere' }));
    const rate = rateValues({ capacity: 10, fill: 1, interval: '1m' });
    await applied(world.url, rate);
    const ids = await submitAll(world, [{}, {}]);
    for (const name of ['elsewhere', 'rate']) {
      expect((await removePolicy(world.url, name)).status).toBe(200);
    }
    expect(await world.view()).toMatchObject({ inFlight: { mistral: 1 }, waiting: 1 });
    for (const id of ids.toReversed()) await cancelJob(world, id);
    await world.idle();
  });

  test('by force: who waits leaves, who runs is aborted, others stay', async () => {
    const world = await hangingWorld({ max: 2 });
    await applied(world.url, slotValues({ name: 'elsewhere', controlPoint: 'elsewhere', max: 1 }));
    const other = [
      await submitJob(world, {}, { controlPoint: 'elsewhere' }),
      await submitJob(world, {}, { controlPoint: 'elsewhere' }),
    ];
    const client = world.post('/v1/completions', { prompt: 'Why?' });
    await world.simulator.until((counts) => counts.started === 2);
    const ids = await submitAll(
      world,
      Array.from({ length: 100 }, (_, index) => ofUser(`u${index % 7}`)),
    );
    await world.simulator.until((counts) => counts.started === 3);
    const waits = world.post('/v1/completions', { prompt: 'Why?' });
    await world.until((view) => view.lengths.get('mistral-prompt') === 100);

    const removed = await removePolicy(world.url, 'mistral', '?force=true');
    expect(await removed.json()).toEqual({ name: 'mistral', cancelled: 102 });
    const view = await world.view();
    expect(view.inFlight).toEqual({
      elsewhere: 1,
      [`pool:${world.config.domain}`]: 1,
      [`replica:${world.config.domain}-1`]: 1,
    });
    expect(view).toMatchObject({ waiting: 1, live: 2 });
    expect(view.limits).not.toHaveProperty('mistral');
    const cancelled = { status: 499, code: 'cancelled' };
    await expectRefusal(await client, 'openai', cancelled);
    const message = await expectRefusal(await waits, 'openai', cancelled);
    expect(message).toContain('policy mistral was removed');
    for (const id of ids) expect(await stateOf(world, id)).toBe('cancelled');
    expect(world.simulator.state()).toMatchObject({ started: 3, aborted: 2, in_flight: 1 });

    await world.simulator.setFault({ mode: 'none' });
    expect((await world.post('/v1/completions', { prompt: 'Why?' })).status).toBe(200);
    for (const id of other.toReversed()) await cancelJob(world, id);
    await world.idle();
  });

  test('by force, while more arrive: they go on without it', async () => {
    const world = await newWorld({ max: 2, simulator: { speed: 200 } });
    const stop = load(world, 8);
    await world.simulator.until((counts) => counts.completed > 10);
    expect((await removePolicy(world.url, 'mistral', '?force=true')).status).toBe(200);
    const { completed } = world.simulator.state();
    await world.simulator.until((counts) => counts.completed > completed + 10);
    expect([...(await stop()).keys()].toSorted()).toEqual([200, 499]);
    await world.idle();
    expect((await world.view()).limits).not.toHaveProperty('mistral');
  });
});

describe('several gateways', () => {
  test('what one has changed holds for the next request at the other', async () => {
    const world = await hangingWorld({ max: 1 });
    const other = { url: await world.startAnother() };
    // Both have scheduled with the first version.
    const ids = [await submitJob(world, ofUser('u1')), await submitJob(other, ofUser('u1'))];
    await applied(world.url, slotValues({ max: 4, perLabel: { user_id: 2 } }));
    ids.push(await submitJob(other, ofUser('u1')), await submitJob(other, ofUser('u2')));
    const { inFlight, waiting } = await world.view();
    expect(inFlight).toMatchObject({ 'mistral.user_id=u1': 2, 'mistral.user_id=u2': 1 });
    expect(waiting).toBe(1);
    await applied(other.url, slotValues({ name: 'first', max: 1 }));
    ids.push(await submitJob(world));
    const { request } = await world.admission.inspectRequest(ids.at(-1) ?? '');
    expect(request?.queue).toMatch(/^first\//);
    for (const url of [world.url, other.url]) {
      const queue = await (await fetch(`${url}/v1/queues/mistral-prompt`)).json();
      expect(queue).toMatchObject({ waiting: 2, limits: [{ key: 'first', limit: 1 }, {}, {}, {}] });
    }
    for (const id of ids.toReversed()) await cancelJob(world, id);
    await world.idle();
  });

  test('changes at both at a time end in one of them, and everybody is keyed by it', async () => {
    const world = await hangingWorld({ max: 2 });
    const other = await world.startAnother();
    const ids = await submitAll(world, ['u1', 'u2', 'u3', 'u4'].map(ofUser));
    const answers = await Promise.all(
      [1, 2, 3, 4, 5, 6].map((index) => {
        const perLabel = { [index % 2 === 0 ? 'user_id' : 'team']: index };
        const url = index % 3 === 0 ? other : world.url;
        return putPolicy(url, slotValues({ max: 2, perLabel }));
      }),
    );
    for (const { status } of answers) expect(status).toBe(200);
    const { policies, rekeying } = await world.admission.inspectPolicies();
    expect(rekeying).toBeUndefined();
    const byUser = policies[0]?.limits['mistral.user_id'] !== undefined;
    for (const id of ids) {
      const { request } = await world.admission.inspectRequest(id);
      expect(request?.queue.includes('mistral.user_id=')).toBe(byUser);
    }
    for (const id of ids.toReversed()) await cancelJob(world, id);
    await world.idle();
  });
});

test('a priority from the header is kept when requests are keyed anew', async () => {
  const world = await hangingWorld({ max: 1 });
  const labels = { priority: '2' };
  const ids = [
    await submitJob(world, labels),
    await submitJob(world, labels, { headers: { 'Sluice-Priority': '7' } }),
    await submitJob(world, labels),
  ];
  await applied(world.url, slotValues({ max: 1, perLabel: { user_id: 1 } }));
  for (const [index, priority] of [2, 7, 2].entries()) {
    const { request } = await world.admission.inspectRequest(ids[index] ?? '');
    expect(request?.queue).toContain(`/default@${priority}/`);
  }
  for (const id of ids.toReversed()) await cancelJob(world, id);
  await world.idle();
});

test('a start with files leaves a policy alone that was changed over HTTP, until it is given back', async () => {
  const world = await newWorld({ max: 4 });
  const limitOf = async () => (await world.view()).limits.mistral;
  const warning = 'policy mistral was changed over HTTP';
  // Nobody has changed it yet: another file wins.
  await world.startAnother({ policies: [policyValues(5)] });
  expect(await limitOf()).toBe(5);
  await applied(world.url, slotValues({ max: 2 }));
  await world.startAnother({ policies: [policyValues(2), policyValues(3, 'new')] });
  expect(await world.view()).toMatchObject({ limits: { mistral: 2, new: 3 } });
  expect(world.log()).not.toContain(warning);

  await world.startAnother();
  expect(await limitOf()).toBe(2);
  expect(world.log()).toContain(warning);
  expect(world.log()).toContain('DELETE /v1/policies/mistral');
  expect((await removePolicy(world.url, 'mistral')).status).toBe(200);
  await world.startAnother();
  expect(await limitOf()).toBe(4);
});

test('a quota that is raised lets those go who waited for its refill', async () => {
  const quota = { capacity: 100, fill: 1, interval: '1h' };
  const world = await hangingWorld({ config: { policies: [quotaValues(quota)] } });
  onTestFinished(() => world.simulator.setFault({ mode: 'none' }));
  const ids = await submitAll(world, [{ tokens: '90' }, { tokens: '20' }]);
  expect((await world.view()).waiting).toBe(1);
  await applied(world.url, quotaValues({ ...quota, fill: 1_000_000, interval: '1s' }));
  await world.simulator.until((counts) => counts.started === 2);
  for (const id of ids) await cancelJob(world, id);
  await world.idle();
});
