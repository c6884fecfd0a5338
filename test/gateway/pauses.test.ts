/** A control point or a pool that takes nobody for a time. */
import { expect, test } from 'vitest';
import { expectRefusal } from './errors.ts';
import { newWorld, type World } from './world.ts';

const prompt = { prompt: 'a rose', stream: false };

async function change(world: World, method: 'PUT' | 'DELETE', place: string): Promise<object> {
  const response = await world.get(`/v1/paused/${place}`, { method });
  expect(response.status).toBe(200);
  return (await response.json()) as object;
}

test('a control point: prompts and flows wait, and go on where they were', async () => {
  const world = await newWorld();
  const place = 'control_points/mistral-prompt';
  const paused = { control_points: ['mistral-prompt'], pools: [] };
  expect(await change(world, 'PUT', place)).toEqual(paused);
  expect(await change(world, 'PUT', place)).toEqual(paused);
  expect(await (await world.get('/v1/paused')).json()).toEqual(paused);
  const answers = [world.post('/api/generate', prompt), world.post('/api/generate', prompt)];
  const view = await world.until(({ waiting }) => waiting === 2);
  expect(view.inFlight).toEqual({});
  const flow = await world.post('/v1/flows', { control_point: 'mistral-prompt', timeout_ms: 100 });
  expect(flow.status).toBe(504);
  // Another gateway knows it, too.
  const other = await world.startAnother();
  const queue = await (await fetch(`${other}/v1/queues/mistral-prompt`)).json();
  expect(queue).toMatchObject({ paused: true, waiting: 2 });
  // Elsewhere all goes on.
  const elsewhere = await world.post('/v1/flows', { control_point: 'another' });
  expect(await elsewhere.json()).toMatchObject({ state: 'admitted' });

  const resumed = { control_points: [], pools: [] };
  expect(await change(world, 'DELETE', place)).toEqual(resumed);
  expect(await change(world, 'DELETE', place)).toEqual(resumed);
  const statuses = (await Promise.all(answers)).map(({ status }) => status);
  expect(statuses).toEqual([200, 200]);
  expect((await world.post('/api/generate', prompt)).status).toBe(200);
});

test('a pool: its prompts wait, flows do not', async () => {
  const world = await newWorld();
  const place = `pools/${world.config.domain}`;
  expect(await change(world, 'PUT', place)).toEqual({
    control_points: [],
    pools: [world.config.domain],
  });
  const answer = world.post('/api/generate', prompt);
  await world.until(({ waiting }) => waiting === 1);
  const flow = await world.post('/v1/flows', { control_point: 'mistral-prompt' });
  expect(flow.status).toBe(200);
  await change(world, 'DELETE', place);
  expect((await answer).status).toBe(200);
});

test('what there is not cannot be paused', async () => {
  const world = await newWorld();
  const put = (place: string) => world.get(`/v1/paused/${place}`, { method: 'PUT' });
  await expectRefusal(await put('pools/nobody'), 'openai', { status: 404, code: 'not_found' });
  const name = encodeURIComponent('no name');
  const refused = { status: 400, code: 'invalid_request' };
  await expectRefusal(await put(`control_points/${name}`), 'openai', refused);
});
