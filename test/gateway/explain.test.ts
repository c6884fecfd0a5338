/** `GET /v1/requests/:id`: where a request stands, what keeps it, who holds that, and until when. */
import { expect, test } from 'vitest';
import { cancelJob, quotaValues, slotValues, submitJob } from './policies.ts';
import { newWorld, type World } from './world.ts';

async function explain(world: World, id: string): Promise<Record<string, unknown>> {
  const answer = await world.get(`/v1/requests/${id}`);
  expect(answer.status).toBe(200);
  return (await answer.json()) as Record<string, unknown>;
}

test("a user's own limit, the policy's and the pool's, by readable names, with their holders", async () => {
  const policies = [slotValues({ name: 'team.a', max: 2, perLabel: { user_id: 1 } })];
  const world = await newWorld({ config: { policies } });
  await world.simulator.setFault({ mode: 'hang' });
  const user = { user_id: 'ann/1.x' };
  const held = await submitJob(world, user);
  await world.simulator.until((counts) => counts.started === 1);
  const second = await submitJob(world, user);
  const third = await submitJob(world, user);
  const own = { limiter: 'team.a.user_id=ann/1.x', limit: 1, in_flight: 1, held_by: [held] };
  expect(await explain(world, second)).toEqual({
    id: second,
    state: 'waiting',
    position: 1,
    ahead: 1,
    waits_for: [own],
    // Nothing was served yet: 1 s for each before it and for itself, one at a time.
    estimated_start_ms: 1_000,
    basis: expect.stringContaining('mean service time'),
  });
  expect(await explain(world, third)).toMatchObject({
    position: 2,
    ahead: 1,
    waits_for: [own],
    estimated_start_ms: 2_000,
  });

  const other = await submitJob(world, { user_id: 'bob' });
  const late = await submitJob(world, { user_id: 'eve' });
  expect(await explain(world, late)).toMatchObject({
    position: 1,
    ahead: 2,
    waits_for: [
      { limiter: 'team.a', limit: 2, in_flight: 2, held_by: expect.arrayContaining([held, other]) },
    ],
    // Three wait under the policy, for two slots.
    estimated_start_ms: 1_500,
  });
  expect(await explain(world, held)).toEqual({
    id: held,
    state: 'running',
    position: 0,
    ahead: 0,
    waits_for: [],
    estimated_start_ms: 0,
    basis: 'it does not wait',
  });
  const { policies: list } = (await (await world.get('/v1/policies')).json()) as {
    policies: object[];
  };
  expect(list).toHaveLength(1);
  expect(await (await world.get('/v1/queues/mistral-prompt')).json()).toMatchObject({
    waiting: 3,
    limits: expect.arrayContaining([
      { key: 'team.a.user_id=ann/1.x', limit: 1, in_flight: 1 },
      { key: 'team.a', limit: 2, in_flight: 2, waiting: 3 },
    ]),
  });
  for (const id of [late, third, second, other, held]) await cancelJob(world, id);
  expect(await explain(world, held)).toMatchObject({ waits_for: [], basis: 'it does not wait' });
  await world.idle();
});

test('a pool without a worker holds up everybody', async () => {
  const world = await newWorld({ worker: false });
  const id = await submitJob(world);
  const pool = `pool:${world.config.domain}`;
  expect(await explain(world, id)).toMatchObject({
    waits_for: [{ limiter: pool, limit: 0, in_flight: 0, held_by: [] }],
  });
  await cancelJob(world, id);
});

test('a quota says what it has, what it is held for and when it can pay', async () => {
  const quota = { capacity: 100, fill: 1, interval: '1s' };
  const world = await newWorld({ config: { policies: [quotaValues(quota)] } });
  await world.simulator.setFault({ mode: 'hang' });
  const running = await submitJob(world, { tokens: '100' });
  const first = await submitJob(world, { tokens: '60' });
  const second = await submitJob(world, { tokens: '30' });
  const explained = await explain(world, first);
  expect(explained).toMatchObject({ state: 'waiting', position: 1, ahead: 1 });
  const [waitsFor, ...others] = explained.waits_for as Record<string, unknown>[];
  expect(others).toEqual([]);
  expect(waitsFor).toEqual({
    limiter: 'quota',
    limit: 100,
    tokens: expect.any(Number),
    refill_ms: expect.any(Number),
    held_for: first,
  });
  const { tokens, refill_ms } = waitsFor as { tokens: number; refill_ms: number };
  // A token a second: what it has and what it lacks are 60.
  expect(tokens + refill_ms / 1_000).toBeCloseTo(60, 2);
  expect(tokens).toBeGreaterThanOrEqual(0);
  expect(tokens).toBeLessThan(30);
  // Two wait for it, and each is taken to cost as much.
  const estimated = Number(explained.estimated_start_ms);
  expect(estimated / 1_000 + tokens).toBeCloseTo(120, 2);
  expect(await explain(world, second)).toMatchObject({ waits_for: [{ held_for: first }] });
  for (const id of [second, first, running]) await cancelJob(world, id);
  await world.idle();
});
