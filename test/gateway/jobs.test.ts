/** Jobs: submitted, polled, cancelled, in the documented shapes. */
import { expect, test } from 'vitest';
import { expectRefusal } from './errors.ts';
import { newWorld, type World } from './world.ts';

interface Job {
  readonly id: string;
  readonly state: string;
}

const job = { path: '/api/generate', body: { prompt: 'Why?' } };

async function submit(world: World, more: object = {}): Promise<Job> {
  const answer = await world.post('/v1/jobs', { ...job, ...more });
  expect(answer.status).toBe(202);
  const body = (await answer.json()) as Job;
  expect(answer.headers.get('sluice-request-id')).toBe(body.id);
  expect(answer.headers.get('location')).toBe(`/v1/jobs/${body.id}`);
  expect(body.id).not.toContain(':');
  return body;
}

async function poll(world: World, id: string): Promise<Job> {
  return (await (await world.get(`/v1/jobs/${id}`)).json()) as Job;
}

async function ended(world: World, id: string): Promise<Job> {
  await expect
    .poll(async () => (await poll(world, id)).state, { timeout: 10_000, interval: 10 })
    .not.toMatch(/waiting|admitted|running/);
  return poll(world, id);
}

test('a job is submitted, answered and kept', async () => {
  const world = await newWorld();
  const labels = { user_id: 'u1', tokens: '50' };
  const submitted = await submit(world, { labels, timeout_ms: 5_000 });
  expect(submitted).toEqual({
    id: expect.any(String),
    state: expect.stringMatching(/waiting|admitted/),
    control_point: 'mistral-prompt',
    position: expect.any(Number),
    estimated_start_ms: expect.any(Number),
  });
  expect(await ended(world, submitted.id)).toEqual({
    id: submitted.id,
    state: 'done',
    control_point: 'mistral-prompt',
    attempt: 1,
    response: { status: 200, body: expect.objectContaining({ done: true }) },
    created_at: expect.any(Number),
    admitted_at: expect.any(Number),
    started_at: expect.any(Number),
    ended_at: expect.any(Number),
  });
  await world.idle();
});

test('a job that waits says where, and can be cancelled', async () => {
  const world = await newWorld({ max: 1 });
  await world.simulator.setFault({ mode: 'hang' });
  const first = await submit(world);
  await world.simulator.until((counts) => counts.started === 1);
  const second = await submit(world);
  const third = await submit(world);
  expect(await poll(world, third.id)).toEqual({
    id: third.id,
    state: 'waiting',
    control_point: 'mistral-prompt',
    attempt: 0,
    position: 2,
    estimated_start_ms: expect.any(Number),
    created_at: expect.any(Number),
    admitted_at: null,
    started_at: null,
    ended_at: null,
  });
  const explained = await (await world.get(`/v1/requests/${third.id}`)).json();
  expect(explained).toMatchObject({
    state: 'waiting',
    position: 2,
    waits_for: [{ limiter: 'mistral', limit: 1, in_flight: 1 }],
  });

  const cancelled = await world.get(`/v1/jobs/${second.id}`, { method: 'DELETE' });
  expect(cancelled.status).toBe(200);
  expect(await cancelled.json()).toEqual({ id: second.id, state: 'cancelled', cancelling: false });
  expect(await poll(world, second.id)).toMatchObject({
    state: 'cancelled',
    error: { code: 'cancelled', message: expect.any(String) },
  });

  const running = await world.get(`/v1/jobs/${first.id}`, { method: 'DELETE' });
  expect(running.status).toBe(202);
  expect(await running.json()).toEqual({ id: first.id, state: 'running', cancelling: true });
  await world.simulator.until((counts) => counts.aborted === 1);
  expect(await ended(world, first.id)).toMatchObject({ state: 'cancelled' });
  const again = await world.get(`/v1/jobs/${first.id}`, { method: 'DELETE' });
  expect(again.status).toBe(200);

  await world.simulator.until((counts) => counts.started === 2);
  await world.get(`/v1/jobs/${third.id}`, { method: 'DELETE' });
  await world.idle();
});

test("a job's end in the queue and at the replica are told by their codes", async () => {
  const world = await newWorld({ max: 1 });
  await world.simulator.setFault({ mode: 'hang' });
  const first = await submit(world);
  await world.simulator.until((counts) => counts.started === 1);
  const late = await submit(world, { timeout_ms: 30 });
  expect(await ended(world, late.id)).toMatchObject({ error: { code: 'queue_timeout' } });
  await world.get(`/v1/jobs/${first.id}`, { method: 'DELETE' });
  await ended(world, first.id);

  await world.simulator.setFault({ mode: 'none' });
  const refused = await submit(world, { body: { prompt: 'Why?', options: 'none' } });
  const answer = { state: 'done', response: { status: 400, body: { error: expect.any(String) } } };
  expect(await ended(world, refused.id)).toMatchObject(answer);
});

test('an unknown model and control point: the first is refused, the second only lacks a policy', async () => {
  const world = await newWorld();
  const body = { prompt: 'Why?', model: 'gpt' };
  const refusal = { status: 404, code: 'unknown_model', param: 'model' };
  await expectRefusal(await world.post('/v1/jobs', { ...job, body }), 'openai', refusal);
  const { id } = await submit(world, { control_point: 'elsewhere' });
  expect(await ended(world, id)).toMatchObject({ state: 'done', control_point: 'elsewhere' });
});
