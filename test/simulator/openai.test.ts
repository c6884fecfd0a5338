import { expect, test } from 'vitest';
import { post, quickReplica } from './world.ts';

const messages = [{ role: 'user', content: 'Why is the sky blue?' }];

/** The events of a stream, the last of which must be `[DONE]`. */
function events(text: string): Record<string, unknown>[] {
  const data = text.split('\n\n').filter((event) => event !== '');
  expect(data.every((event) => event.startsWith('data: '))).toBe(true);
  expect(data.pop()).toBe('data: [DONE]');
  return data.map((event) => JSON.parse(event.slice('data: '.length)));
}

interface Part {
  choices: { delta?: { role?: string; content?: string }; text?: string; finish_reason: unknown }[];
  usage?: unknown;
}

test('a chat completion has a message and usage that adds up', async () => {
  const replica = await quickReplica();
  const body = { model: 'mistral', messages, max_tokens: 20 };
  const response = await post(replica, '/v1/chat/completions', body);
  expect(response.status).toBe(200);
  expect(await response.json()).toEqual({
    id: expect.stringMatching(/^chatcmpl-/),
    object: 'chat.completion',
    created: expect.any(Number),
    model: 'mistral',
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: expect.stringMatching(/^[A-Z]/) },
        logprobs: null,
        finish_reason: 'length',
      },
    ],
    usage: { prompt_tokens: 7, completion_tokens: 20, total_tokens: 27 },
  });
});

test('a streamed chat completion is the same text in parts, and ends with [DONE]', async () => {
  const replica = await quickReplica();
  const body = { model: 'mistral', messages };
  const whole = await (await post(replica, '/v1/chat/completions', body)).json();
  const response = await post(replica, '/v1/chat/completions', { ...body, stream: true });
  expect(response.headers.get('content-type')).toContain('text/event-stream');
  const parts = events(await response.text()) as unknown as Part[];
  expect(parts[0]?.choices[0]?.delta?.role).toBe('assistant');
  expect(parts[1]?.choices[0]?.delta).not.toHaveProperty('role');
  expect(parts.at(-1)?.choices[0]).toMatchObject({ delta: {}, finish_reason: 'stop' });
  expect(parts.every((part) => !('usage' in part))).toBe(true);
  const text = parts.map(({ choices }) => choices[0]?.delta?.content ?? '').join('');
  expect(whole).toMatchObject({ choices: [{ message: { content: text } }] });
});

test('include_usage adds a last event without choices that holds the usage', async () => {
  const replica = await quickReplica();
  const options = { stream: true, stream_options: { include_usage: true }, max_tokens: 60 };
  const body = { model: 'mistral', messages, ...options };
  const response = await post(replica, '/v1/chat/completions', body);
  const parts = events(await response.text()) as unknown as Part[];
  const last = parts.pop();
  expect(last).toMatchObject({
    choices: [],
    usage: { prompt_tokens: 7, completion_tokens: 60, total_tokens: 67 },
  });
  expect(parts.every(({ usage }) => usage === null)).toBe(true);
});

test('n choices have the same text, and come one event each in a stream', async () => {
  const replica = await quickReplica();
  const options = { n: 3, max_tokens: 60, stream_options: { include_usage: true } };
  const body = { model: 'mistral', messages, ...options };
  const answer = await (await post(replica, '/v1/chat/completions', body)).json();
  const { choices } = answer as { choices: { index: number; message: { content: string } }[] };
  const text = choices[0]?.message.content;
  expect(choices.map(({ index }) => index)).toEqual([0, 1, 2]);
  expect(choices.every(({ message }) => message.content === text)).toBe(true);
  expect(answer).toMatchObject({ usage: { completion_tokens: 180 } });
  const response = await post(replica, '/v1/chat/completions', { ...body, stream: true });
  const parts = events(await response.text()) as unknown as Streamed[];
  expect(parts.pop()).toMatchObject({ choices: [], usage: { completion_tokens: 180 } });
  expect(parts.every((part) => part.choices.length === 1)).toBe(true);
  for (const place of [0, 1, 2]) {
    const own = parts.flatMap((part) => part.choices).filter(({ index }) => index === place);
    expect(own.map(({ delta }) => delta.content ?? '').join('')).toBe(text);
    expect(own[0]?.delta.role).toBe('assistant');
    expect(own.at(-1)?.finish_reason).toBe('length');
  }
});

interface Streamed {
  choices: {
    index: number;
    delta: {
      role?: string;
      content?: string | null;
      tool_calls?: { index: number; id?: string; function: { name?: string; arguments: string } }[];
    };
    finish_reason: unknown;
  }[];
}

const tools = [
  { type: 'function', function: { name: 'look_up', parameters: {} } },
  { type: 'function', function: { name: 'other', parameters: {} } },
];

test('with tools the answer is a call of the first one', async () => {
  const replica = await quickReplica();
  const body = { model: 'mistral', messages, tools, tool_choice: 'auto' };
  const answer = await (await post(replica, '/v1/chat/completions', body)).json();
  const id = expect.stringMatching(/^call_/);
  const made = { name: 'look_up', arguments: expect.any(String) };
  const message = {
    ...{ role: 'assistant', content: null },
    tool_calls: [{ id, type: 'function', function: made }],
  };
  const choice = { index: 0, message, logprobs: null, finish_reason: 'tool_calls' };
  expect(answer).toMatchObject({ choices: [choice] });
  const { choices } = answer as { choices: { message: Streamed['choices'][0]['delta'] }[] };
  const whole = choices[0]?.message.tool_calls?.[0]?.function.arguments ?? '';
  expect(JSON.parse(whole)).toEqual({ echo: expect.stringMatching(/^[A-Z].*\.$/) });

  const response = await post(replica, '/v1/chat/completions', { ...body, stream: true });
  const parts = events(await response.text()) as unknown as Streamed[];
  const [opening, ...pieces] = parts.slice(0, -1).map((part) => part.choices[0]?.delta);
  const first = { index: 0, id, type: 'function', function: { name: 'look_up', arguments: '' } };
  expect(opening).toEqual({ role: 'assistant', content: null, tool_calls: [first] });
  expect(pieces.length).toBeGreaterThan(1);
  const text = pieces.map((piece) => piece?.tool_calls?.[0]?.function.arguments).join('');
  expect(text).toBe(whole);
  expect(parts.at(-1)?.choices[0]).toMatchObject({ delta: {}, finish_reason: 'tool_calls' });
});

test.each([{ tools, tool_choice: 'none' }, { tools: [] }, { logprobs: true, stop: ['the'] }])(
  'an answer stays a text with %o',
  async (more) => {
    const replica = await quickReplica();
    const ask = async (body: object) =>
      (await post(replica, '/v1/chat/completions', { model: 'mistral', messages, ...body })).json();
    expect(((await ask(more)) as Part).choices).toEqual(((await ask({})) as Part).choices);
  },
);

test('a response_format of json_object gives a JSON text in both modes', async () => {
  const replica = await quickReplica();
  const body = { model: 'mistral', messages, response_format: { type: 'json_object' } };
  const whole = await (await post(replica, '/v1/chat/completions', body)).json();
  const response = await post(replica, '/v1/chat/completions', { ...body, stream: true });
  const parts = events(await response.text()) as unknown as Part[];
  const text = parts.map(({ choices }) => choices[0]?.delta?.content ?? '').join('');
  expect(JSON.parse(text)).toEqual({ answer: expect.stringMatching(/^[A-Z].*\.$/) });
  expect(whole).toMatchObject({ choices: [{ message: { content: text } }] });
});

test('the older completions answer with text in both modes', async () => {
  const replica = await quickReplica();
  const body = { model: 'mistral', prompt: 'Once upon a time', max_tokens: 120 };
  const whole = (await (await post(replica, '/v1/completions', body)).json()) as Part;
  expect(whole).toMatchObject({ object: 'text_completion', usage: { completion_tokens: 120 } });
  const response = await post(replica, '/v1/completions', { ...body, stream: true });
  const parts = events(await response.text()) as unknown as Part[];
  expect(parts.length).toBeGreaterThan(2);
  const text = parts.map(({ choices }) => choices[0]?.text).join('');
  expect(text).toBe(whole.choices[0]?.text);
});

test('max_completion_tokens limits too, and text parts are read as one text', async () => {
  const replica = await quickReplica();
  const parts = [
    { type: 'text', text: 'Why is the sky' },
    { type: 'text', text: ' blue?' },
  ];
  const ask = (content: unknown) =>
    post(replica, '/v1/chat/completions', {
      model: 'mistralai/Mistral-7B-Instruct-v0.2',
      messages: [{ role: 'user', content }],
      max_completion_tokens: 4,
    }).then((response) => response.json());
  const [plain, split] = await Promise.all([ask('Why is the sky blue?'), ask(parts)]);
  expect(plain).toMatchObject({ usage: { completion_tokens: 4 } });
  expect((split as Part).choices).toEqual((plain as Part).choices);
});

test('embeddings come as numbers or as base64 of the same floats', async () => {
  const replica = await quickReplica();
  const ask = (more: object) =>
    post(replica, '/v1/embeddings', {
      model: 'mistral',
      input: 'text',
      dimensions: 4,
      ...more,
    }).then((response) => response.json());
  const plain = (await ask({})) as { data: { embedding: number[] }[] };
  expect(plain).toMatchObject({
    object: 'list',
    usage: { prompt_tokens: 1, total_tokens: 1 },
    data: [{ object: 'embedding', index: 0 }],
  });
  const coded = (await ask({ encoding_format: 'base64' })) as { data: { embedding: string }[] };
  const bytes = Buffer.from(coded.data[0]?.embedding ?? '', 'base64');
  const floats = [0, 4, 8, 12].map((offset) => bytes.readFloatLE(offset));
  floats.forEach((value, index) => {
    expect(value).toBeCloseTo(plain.data[0]?.embedding[index] ?? Number.NaN, 6);
  });
});

test('models lists every accepted name', async () => {
  const replica = await quickReplica();
  const response = await fetch(`${replica.url}/v1/models`);
  const { data } = (await response.json()) as { data: { id: string; object: string }[] };
  expect(data.map(({ id }) => id)).toEqual([
    'mistral',
    'mistral:latest',
    'mistralai/Mistral-7B-Instruct-v0.2',
  ]);
});

const chat = '/v1/chat/completions';
const mistakes: [string, string, unknown, number, string | null, string][] = [
  ['unknown model', chat, { model: 'gpt', messages }, 404, 'model', 'model_not_found'],
  ['no model', chat, { messages }, 400, 'model', 'invalid_request'],
  ['no messages', chat, { model: 'mistral' }, 400, 'messages', 'invalid_request'],
  [
    'a message without role',
    chat,
    { model: 'mistral', messages: [{}] },
    400,
    'messages[0]',
    'invalid_request',
  ],
  [
    'max_tokens 0',
    chat,
    { model: 'mistral', messages, max_tokens: 0 },
    400,
    'max_tokens',
    'invalid_request',
  ],
  ['five answers', chat, { model: 'mistral', messages, n: 5 }, 400, 'n', 'invalid_request'],
  ['no answer', chat, { model: 'mistral', messages, n: 0 }, 400, 'n', 'invalid_request'],
  [
    'a tool without a name',
    chat,
    { model: 'mistral', messages, tools: ['x'] },
    400,
    'tools',
    'invalid_request',
  ],
  ['bad JSON', chat, '{', 400, null, 'invalid_request'],
  ['no prompt', '/v1/completions', { model: 'mistral' }, 400, 'prompt', 'invalid_request'],
  ['no input', '/v1/embeddings', { model: 'mistral' }, 400, 'input', 'invalid_request'],
  ['unknown path', '/v1/nothing', {}, 404, null, 'not_found'],
  ['wrong method', '/v1/models', {}, 405, null, 'method_not_allowed'],
];

test.each(mistakes)('%s is refused in the shape of OpenAI', async (...mistake) => {
  const [, path, body, status, param, code] = mistake;
  const replica = await quickReplica();
  const response = await post(replica, path, body);
  expect(response.status).toBe(status);
  const error = { message: expect.any(String), type: 'invalid_request_error', param, code };
  expect(await response.json()).toEqual({ error });
});

test('a body beyond the limit is refused with 413', async () => {
  const replica = await quickReplica({ bodyBytes: 1000 });
  const response = await post(replica, chat, 'x'.repeat(2000));
  expect(response.status).toBe(413);
  expect(await response.json()).toMatchObject({ error: { code: 'payload_too_large' } });
});
