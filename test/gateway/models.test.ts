/** Several models: the name chooses the pool, the control point and the replica's own name for it. */
import { expect, onTestFinished, test } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { contentOf } from '../support/events.ts';
import { expectRefusal } from './errors.ts';
import { newWorld, type World } from './world.ts';

const messages = [{ role: 'user', content: 'Why?' }];
const mixtral = 'mistralai/Mixtral-8x7B-Instruct-v0.1';

/** Mistral in Ollama, Mixtral in vLLM, Mistral-Instruct behind Ray Serve. */
async function threeModels(): Promise<{ world: World; second: Simulator; third: Simulator }> {
  const start = async (model: string) => {
    const simulator = await startSimulator({ speed: 1000, model, keepBodies: true });
    onTestFinished(() => simulator.stop());
    return simulator;
  };
  const [second, third] = [await start(mixtral), await start('mistral')];
  const pools = {
    big: { replicas: [{ url: second.url, protocol: 'openai', model: mixtral }] },
    inferentia: {
      template: 'mistral-instruct',
      replicas: [{ url: third.url, protocol: 'ray' }],
    },
  };
  const simulator = await start('mistral');
  const world = await newWorld({
    config: {
      pools: { ...pools, small: { replicas: [{ url: simulator.url }] } },
      models: { mistral: { pool: 'small' }, mixtral: { pool: 'big' }, ray: { pool: 'inferentia' } },
      default_model: 'mistral',
      policies: [],
    },
  });
  return { world, second, third };
}

test('the model chooses the pool, whatever the client and the replica speak', async () => {
  const { world, second, third } = await threeModels();
  for (const model of ['mixtral', 'ray']) {
    const body = { model, messages };
    const whole = (await (await world.post('/v1/chat/completions', body)).json()) as {
      choices: { message: { content: string } }[];
    };
    const streamed = await world.post('/v1/chat/completions', { ...body, stream: true });
    expect(contentOf(await streamed.text())).toBe(whole.choices[0]?.message.content);
    const chat = await (await world.post('/api/chat', { ...body, stream: false })).json();
    expect(chat).toMatchObject({ message: { role: 'assistant' }, done: true });
    const infer = await world.get(`/infer?model=${model}&text=Why`);
    expect([infer.status, infer.headers.get('content-type')]).toEqual([
      200,
      'text/plain; charset=utf-8',
    ]);
  }
  const asked = second.state().log.map(({ body = '' }) => JSON.parse(body).model as string);
  expect(asked).toEqual([mixtral, mixtral, mixtral, mixtral]);
  const texts = third.state().log.map(({ query }) => new URLSearchParams(query).get('text'));
  expect(texts).toEqual([...Array(3).fill('[INST] Why? [/INST]'), '[INST] Why [/INST]']);
});

test('what no replica of the pool can be asked is refused before it waits', async () => {
  const { world, third } = await threeModels();
  const body = { model: 'ray', messages, max_tokens: 5 };
  const refusal = { status: 400, code: 'invalid_request', param: 'max_tokens' } as const;
  const refused = await world.post('/v1/chat/completions', body);
  expect(await expectRefusal(refused, 'openai', refusal)).toContain('ray');
  const job = await world.post('/v1/jobs', { path: '/v1/chat/completions', body });
  await expectRefusal(job, 'openai', refusal);
  expect(third.state().started).toBe(0);
});

test('models are listed, each at a control point of its own', async () => {
  const { world } = await threeModels();
  const names = ['mistral', 'mixtral', 'ray'];
  const models = (await (await world.get('/v1/models')).json()) as { data: { id: string }[] };
  expect(models.data.map(({ id }) => id)).toEqual(names);
  for (const path of ['/api/tags', '/api/ps']) {
    const listed = (await (await world.get(path)).json()) as { models: { name: string }[] };
    expect(listed.models.map(({ name }) => name)).toEqual(names);
  }
  const queues = (await (await world.get('/v1/queues')).json()) as {
    queues: { control_point: string }[];
  };
  expect(queues.queues.map((queue) => queue.control_point)).toEqual(
    names.map((name) => `${name}-prompt`),
  );
  const shown = await world.post('/api/show', { model: 'mixtral' });
  expect(await shown.json()).toMatchObject({ capabilities: ['completion'] });
});
