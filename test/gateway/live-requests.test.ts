/** Who runs and who waits, one by one. */
import { expect, test } from 'vitest';
import { quotaValues, slotValues } from './policies.ts';
import { newWorld, type World } from './world.ts';

const point = 'mistral-prompt';
const as = (key: string): RequestInit => ({ headers: { authorization: `Bearer ${key}` } });

async function start(world: World, body: object, init?: RequestInit): Promise<string> {
  const flow = await world.post('/v1/flows', { control_point: point, ...body }, init);
  return ((await flow.json()) as { id: string }).id;
}

async function listed(world: World, query = '', init?: RequestInit) {
  const answer = await world.get(`/v1/requests${query}`, init);
  expect(answer.status).toBe(200);
  return (await answer.json()) as { requests: { id: string }[]; truncated: boolean };
}

test('those that hold slots, then those that wait, with whose they are and for how long', async () => {
  const other = quotaValues({ controlPoint: 'other', capacity: 9, fill: 1, interval: '1s' });
  const config = { policies: [slotValues({ max: 1 }), other] };
  const world = await newWorld({ worker: false, config });
  expect(await listed(world)).toEqual({ requests: [], truncated: false });
  const labels = { user_id: 'u/1', workload: 'paid', priority: '5' };
  const held = await start(world, { labels, tokens: 12, heartbeat: true });
  const waits = world.post('/v1/jobs', { path: '/api/generate', body: { prompt: 'x' } });
  const job = ((await (await waits).json()) as { id: string }).id;
  const elsewhere = await start(world, { control_point: 'other' });
  const { requests } = await listed(world);
  expect(requests.map(({ id }) => id)).toEqual([held, elsewhere, job]);
  expect(requests[0]).toEqual({
    id: held,
    kind: 'flow',
    state: 'admitted',
    control_point: point,
    policy: 'mistral',
    workload: 'paid',
    priority: 5,
    fairness_key: 'u/1',
    tokens: 12,
    created_at: expect.any(Number),
    admitted_at: expect.any(Number),
    ends_by: expect.any(Number),
  });
  const { admitted_at, ends_by } = requests[0] as unknown as Record<string, number>;
  expect(Number(ends_by) - Number(admitted_at)).toBeLessThan(11_000);
  expect(requests[2]).toMatchObject({ kind: 'prompt', state: 'waiting', workload: 'default' });
  expect(requests[2]).not.toHaveProperty('ends_by');
  const there = await listed(world, '?control_point=other');
  expect(there.requests.map(({ id }) => id)).toEqual([elsewhere]);
  expect(await listed(world, '?control_point=nowhere')).toMatchObject({ requests: [] });
});

test("a key sees its own, an admin's sees all", async () => {
  const api_keys = [{ key: 'a' }, { key: 'b' }, { key: 'root', admin: true }];
  const world = await newWorld({ worker: false, config: { api_keys } });
  const a = await start(world, {}, as('a'));
  const b = await start(world, {}, as('b'));
  const idsOf = async (key: string) => {
    const { requests } = await listed(world, '', as(key));
    return requests.map(({ id }) => id);
  };
  expect([await idsOf('a'), await idsOf('b')]).toEqual([[a], [b]]);
  expect((await idsOf('root')).toSorted()).toEqual([a, b].toSorted());
  expect((await world.get('/v1/requests')).status).toBe(401);
});

test('as many as are shown at a time, and that there are more', async () => {
  const world = await newWorld({ worker: false, max: 1 });
  const submit = (index: number) =>
    world.admission.submit({
      id: `${world.config.domain}-${Date.now().toString(36)}-${String(index).padStart(16, '0')}`,
      kind: 'flow',
      controlPoint: 'crowd',
      labels: {},
      queue: '-/default@1//',
      cost: 1,
      version: 1,
      timeoutMs: 60_000,
      maxInflightMs: 60_000,
    });
  const results = await Promise.all(Array.from({ length: 1_010 }, (_, index) => submit(index)));
  expect(new Set(results.map(({ status }) => status))).toEqual(new Set(['accepted']));
  const { requests, truncated } = await listed(world);
  expect({ shown: requests.length, truncated }).toEqual({ shown: 1_000, truncated: true });
});

test('what is no parameter is named', async () => {
  const world = await newWorld({ worker: false });
  for (const query of ['?control_points=a', '?control_point=a&control_point=b']) {
    expect((await world.get(`/v1/requests${query}`)).status).toBe(400);
  }
});
