import { expect, test } from 'vitest';
import { lines, post, quickReplica } from './world.ts';

const figures = {
  total_duration: expect.any(Number),
  load_duration: 0,
  prompt_eval_count: expect.any(Number),
  prompt_eval_duration: expect.any(Number),
  eval_count: expect.any(Number),
  eval_duration: expect.any(Number),
};

test('generate answers with one object when stream is false', async () => {
  const replica = await quickReplica();
  const body = { model: 'mistral', prompt: 'Why is the sky blue?', stream: false };
  const response = await post(replica, '/api/generate', body);
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toContain('application/json');
  const answer = (await response.json()) as Record<string, number | string>;
  expect(answer).toEqual({
    model: 'mistral',
    created_at: expect.stringMatching(/^\d{4}-.*Z$/),
    response: expect.stringMatching(/^[A-Z].*\.$/),
    done: true,
    done_reason: 'stop',
    ...figures,
  });
  expect(answer.prompt_eval_count).toBe(5);
  expect(`${answer.response}`.split(' ')).toHaveLength(Number(answer.eval_count));
  // The model's own times, in nanoseconds of real time: 65 ms a token at speed 1,000.
  expect(Number(answer.eval_duration) / 1e3 / Number(answer.eval_count)).toBeCloseTo(65, 0);
});

test('generate streams lines by default, and they add up to the same answer', async () => {
  const replica = await quickReplica();
  const body = { model: 'mistral', prompt: 'Why is the sky blue?' };
  const response = await post(replica, '/api/generate', body);
  expect(response.headers.get('content-type')).toBe('application/x-ndjson');
  const parts = lines(await response.text());
  const final = parts.pop();
  expect(parts.length).toBeGreaterThan(2);
  expect(parts.every(({ done, model }) => done === false && model === 'mistral')).toBe(true);
  expect(final).toMatchObject({ response: '', done: true, done_reason: 'stop', ...figures });
  const whole = await post(replica, '/api/generate', { ...body, stream: false });
  const { response: text } = (await whole.json()) as { response: string };
  expect(parts.map((part) => part.response).join('')).toBe(text);
});

test('chat answers as a message in both modes', async () => {
  const replica = await quickReplica();
  const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Hello?' },
  ];
  const whole = await post(replica, '/api/chat', { model: 'mistral', messages, stream: false });
  const answer = (await whole.json()) as { message: { role: string; content: string } };
  expect(answer).toMatchObject({ done: true, message: { role: 'assistant' }, ...figures });
  const streamed = await post(replica, '/api/chat', { model: 'mistral', messages });
  const parts = lines(await streamed.text()) as { message: { content: string } }[];
  expect(parts.map(({ message }) => message.content).join('')).toBe(answer.message.content);
});

test('num_predict cuts the answer short and the reason says so; -1 is no limit', async () => {
  const replica = await quickReplica();
  const body = { model: 'mistral', prompt: 'count', stream: false };
  const short = await post(replica, '/api/generate', { ...body, options: { num_predict: 3 } });
  expect(await short.json()).toMatchObject({ eval_count: 3, done_reason: 'length' });
  const long = await post(replica, '/api/generate', { ...body, options: { num_predict: -1 } });
  expect(await long.json()).toMatchObject({ done_reason: 'stop' });
});

test('embed gives one vector a text', async () => {
  const replica = await quickReplica({ embeddingDimensions: 8 });
  const body = { model: 'mistral', input: ['one', 'two'] };
  const answer = await (await post(replica, '/api/embed', body)).json();
  expect(answer).toMatchObject({ model: 'mistral', prompt_eval_count: 2 });
  const { embeddings } = answer as { embeddings: number[][] };
  expect(embeddings.map((vector) => vector.length)).toEqual([8, 8]);
});

test('embeddings, the older form, gives the vector alone', async () => {
  const replica = await quickReplica({ embeddingDimensions: 8 });
  const body = { model: 'mistral', prompt: 'one' };
  const answer = await (await post(replica, '/api/embeddings', body)).json();
  const newer = await post(replica, '/api/embed', { model: 'mistral', input: 'one' });
  const { embeddings } = (await newer.json()) as { embeddings: number[][] };
  expect(answer).toEqual({ embedding: embeddings[0] });
  expect(replica.state()).toMatchObject({ completed: 2 });
});

test('ps says that the model is in memory', async () => {
  const replica = await quickReplica();
  expect(await (await fetch(`${replica.url}/api/ps`)).json()).toEqual({
    models: [
      {
        ...{ name: 'mistral', model: 'mistral', digest: expect.any(String) },
        ...{ size: expect.any(Number), size_vram: expect.any(Number) },
        details: expect.objectContaining({ family: 'llama' }),
        expires_at: expect.stringMatching(/^\d{4}-.*Z$/),
      },
    ],
  });
});

test('format json gives a JSON text in both modes, of generate and chat', async () => {
  const replica = await quickReplica();
  const messages = [{ role: 'user', content: 'x' }];
  const options = { num_predict: 3 };
  const more = { model: 'mistral', format: 'json', options };
  const generated = await post(replica, '/api/generate', { ...more, prompt: 'x' });
  const text = lines(await generated.text())
    .map((part) => part.response)
    .join('');
  expect(JSON.parse(text)).toEqual({ answer: expect.stringMatching(/^[A-Z]/) });
  const whole = await post(replica, '/api/chat', { ...more, messages, stream: false });
  const { message } = (await whole.json()) as { message: { content: string } };
  expect(JSON.parse(message.content)).toEqual({ answer: expect.any(String) });
});

const tools = [{ type: 'function', function: { name: 'look_up', parameters: {} } }];

test('with tools a chat answers with a call of the first, in one piece in both modes', async () => {
  const replica = await quickReplica();
  const body = { model: 'mistral', messages: [{ role: 'user', content: 'x' }], tools };
  const call = { function: { name: 'look_up', arguments: { echo: expect.any(String) } } };
  const message = { role: 'assistant', content: '', tool_calls: [call] };
  const whole = await post(replica, '/api/chat', { ...body, stream: false });
  const answer = await whole.json();
  expect(answer).toMatchObject({ message, done: true, done_reason: 'stop' });
  const parts = lines(await (await post(replica, '/api/chat', body)).text());
  expect(parts).toHaveLength(2);
  expect(parts[0]).toMatchObject({ message: (answer as { message: object }).message, done: false });
  expect(parts[1]).toMatchObject({ done: true, message: { role: 'assistant', content: '' } });
  expect(parts[1]?.message).not.toHaveProperty('tool_calls');
});

test('tags, version, show and the greeting describe the replica', async () => {
  const replica = await quickReplica({ models: ['mistral:latest'] });
  const get = (path: string) => fetch(`${replica.url}${path}`);
  const tags = (await (await get('/api/tags')).json()) as { models: { name: string }[] };
  expect(tags.models.map(({ name }) => name)).toEqual(['mistral', 'mistral:latest']);
  expect(await (await get('/api/version')).json()).toEqual({ version: expect.any(String) });
  expect(await (await get('/')).text()).toBe('Ollama is running');
  const shown = await (await post(replica, '/api/show', { model: 'mistral' })).json();
  expect(shown).toMatchObject({ details: { family: 'llama' }, capabilities: expect.anything() });
});

const mistakes: [string, string, unknown, number, RegExp][] = [
  ['unknown model', '/api/generate', { model: 'gpt', prompt: 'x' }, 404, /model 'gpt' not found/],
  ['unknown model in chat', '/api/chat', { model: 'gpt', messages: [] }, 404, /not found/],
  ['unknown model in show', '/api/show', { model: 'gpt' }, 404, /not found/],
  ['no model', '/api/generate', { prompt: 'x' }, 400, /model is required/],
  ['no prompt', '/api/generate', { model: 'mistral' }, 400, /prompt is required/],
  ['no messages', '/api/chat', { model: 'mistral' }, 400, /messages is required/],
  ['bad JSON', '/api/generate', '{"model": ', 400, /not valid JSON/],
  ['not an object', '/api/generate', '[]', 400, /JSON object/],
  [
    'bad stream',
    '/api/chat',
    { model: 'mistral', messages: [{ role: 'user' }], stream: 1 },
    400,
    /stream/,
  ],
  [
    'a tool without a name',
    '/api/chat',
    { model: 'mistral', messages: [{ role: 'user' }], tools: [{}] },
    400,
    /tools\[0\]/,
  ],
  ['no prompt to embed', '/api/embeddings', { model: 'mistral' }, 400, /prompt is required/],
  ['bad options', '/api/generate', { model: 'mistral', prompt: 'x', options: 3 }, 400, /options/],
  ['unknown path', '/api/nothing', {}, 404, /nothing at/],
  ['wrong method', '/api/tags', {}, 405, /method/],
];

test.each(mistakes)(
  '%s is refused in the shape of Ollama',
  async (_, path, body, status, reason) => {
    const replica = await quickReplica();
    const response = await post(replica, path, body);
    expect(response.status).toBe(status);
    expect(await response.json()).toEqual({ error: expect.stringMatching(reason) });
    expect(replica.state()).toMatchObject({ started: 0, in_flight_max: 0 });
  },
);
