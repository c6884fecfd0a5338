/** A prompt for Ollama reaches an OpenAI replica with all that it asks, or is refused by name. */

import { expect, test } from 'vitest';
import { exchange, expectRefused, hello, model, sent } from './world.ts';

const ask = (path: string, body: object | string, stream = false) =>
  exchange(path, body, 'openai', stream);

test.each([
  ['/api/chat', { messages: hello }, '/v1/chat/completions', { messages: hello }],
  ['/api/generate', { prompt: 'Hello' }, '/v1/chat/completions', { messages: hello }],
  [
    '/api/generate',
    { prompt: 'Hello', system: 'Be brief.' },
    '/v1/chat/completions',
    { messages: [{ role: 'system', content: 'Be brief.' }, ...hello] },
  ],
  [
    '/api/generate',
    { prompt: '[INST] a [/INST]', raw: true },
    '/v1/completions',
    { prompt: '[INST] a [/INST]', max_tokens: null },
  ],
  [
    '/api/generate',
    { prompt: 'def f():', suffix: 'return 1', options: { num_predict: 9 } },
    '/v1/completions',
    { prompt: 'def f():', suffix: 'return 1', max_tokens: 9 },
  ],
  ['/api/embed', { input: ['a', 'b'] }, '/v1/embeddings', { input: ['a', 'b'] }],
  [
    '/api/embed',
    { input: 'a', truncate: true, dimensions: 64, options: { num_ctx: 512 } },
    '/v1/embeddings',
    { input: 'a', truncate_prompt_tokens: -1, dimensions: 64 },
  ],
  ['/api/embed', { input: 'a', truncate: false }, '/v1/embeddings', { input: 'a' }],
  ['/api/embeddings', { prompt: 'a' }, '/v1/embeddings', { input: 'a' }],
])('%s %j becomes %s', (path, body, theirPath, expected) => {
  const asked = ask(path, { model, ...body });
  expect(asked.request).toMatchObject({ method: 'POST', path: theirPath });
  expect(asked.replyFraming).toBe('whole');
  expect(sent(asked)).toEqual({ model, ...expected });
});

test('a stream is asked for with its usage; embeddings have none', () => {
  const asked = ask('/api/chat', { messages: hello, stream: false }, true);
  expect(asked.replyFraming).toBe('sse');
  expect(sent(asked)).toEqual({
    ...{ model, messages: hello, stream: true, stream_options: { include_usage: true } },
  });
  expect(sent(ask('/api/chat', { messages: hello, stream: true }))).toEqual({
    model,
    messages: hello,
  });
  const embedding = ask('/api/embed', { input: 'a' }, true);
  expect(embedding.replyFraming).toBe('whole');
  expect(sent(embedding)).toEqual({ model, input: 'a' });
});

test('the model goes by its name there', () => {
  const target = { protocol: 'openai', model: 'mistralai/Mistral-7B' } as const;
  expect(sent(exchange('/api/generate', { model, prompt: 'a' }, target)).model).toBe(target.model);
});

test.each([
  [{ temperature: 0.5 }, { temperature: 0.5 }],
  [
    { top_p: 0.9, top_k: 40, min_p: 0.1 },
    { top_p: 0.9, top_k: 40, min_p: 0.1 },
  ],
  [
    { seed: 42, stop: ['\n', 'x'] },
    { seed: 42, stop: ['\n', 'x'] },
  ],
  [{ num_predict: 128 }, { max_tokens: 128 }],
  [{ num_predict: -1 }, {}],
  [{ num_predict: -2 }, {}],
  [{ num_predict: 0 }, {}],
  [
    { presence_penalty: 1, frequency_penalty: 2 },
    { presence_penalty: 1, frequency_penalty: 2 },
  ],
  [{ repeat_penalty: 1.1 }, { repetition_penalty: 1.1 }],
  [{ temperature: null, stop: [], mirostat: null }, {}],
])('options %j become %j', (options, expected) => {
  for (const [path, body] of [
    ['/api/chat', { messages: hello }],
    ['/api/generate', { prompt: 'Hello' }],
  ] as const) {
    expect(sent(ask(path, { ...body, options }))).toEqual({ model, messages: hello, ...expected });
  }
});

test.each([
  ...['num_ctx', 'num_batch', 'num_gpu', 'main_gpu', 'use_mmap', 'use_mlock', 'num_thread'],
  ...['numa', 'low_vram', 'num_keep', 'vocab_only', 'f16_kv'],
])('options.%s only says how a model is loaded', (name) => {
  const asked = ask('/api/chat', { messages: hello, options: { [name]: 1 }, keep_alive: '5m' });
  expect(sent(asked)).toEqual({ model, messages: hello });
});

test.each([
  ...['mirostat', 'mirostat_tau', 'mirostat_eta', 'tfs_z', 'typical_p', 'repeat_last_n'],
  ...['penalize_newline', 'logits_all', 'no_such_option', 'constructor'],
])('options.%s is refused by name', (name) => {
  for (const [path, body] of [
    ['/api/chat', { messages: hello }],
    ['/api/generate', { prompt: 'a' }],
    ['/api/embed', { input: 'a' }],
    ['/api/embeddings', { prompt: 'a' }],
  ] as const) {
    const message = new RegExp(
      `options.${name} cannot be translated for a replica that speaks openai`,
    );
    expectRefused(() => ask(path, { ...body, options: { [name]: 1 } }), `options.${name}`, message);
  }
});

test.each([
  ['/api/chat', { messages: hello, template: '{{ .Prompt }}' }, 'template'],
  ['/api/chat', { messages: hello, think: true }, 'think'],
  ['/api/chat', { messages: hello, think: 'high' }, 'think'],
  ['/api/chat', { messages: hello, logprobs: true }, 'logprobs'],
  ['/api/chat', { messages: hello, no_such_field: 0 }, 'no_such_field'],
  ['/api/chat', { messages: hello, format: 'xml' }, 'format'],
  ['/api/chat', { messages: hello, options: 'x' }, 'options'],
  ['/api/chat', { messages: hello, options: { num_predict: '9' } }, 'options.num_predict'],
  ['/api/chat', { messages: [] }, 'messages'],
  ['/api/chat', {}, 'messages'],
  ['/api/chat', { messages: ['a'] }, 'messages[0]'],
  ['/api/chat', { messages: [{ content: 'a' }] }, 'messages[0].role'],
  ['/api/chat', { messages: [{ role: 'user', content: 1 }] }, 'messages[0].content'],
  ['/api/chat', { messages: [...hello, { role: 'user', x: 1 }] }, 'messages[1].x'],
  ['/api/chat', { messages: [{ role: 'assistant', thinking: 'hm' }] }, 'messages[0].thinking'],
  ['/api/chat', { messages: [{ role: 'user', images: 'x' }] }, 'messages[0].images'],
  ['/api/chat', { messages: [{ role: 'user', images: ['x'] }] }, 'messages[0].images[0]'],
  ['/api/chat', { messages: [{ role: 'tool', content: 'x' }] }, 'messages[0]'],
  ['/api/chat', { messages: [{ role: 'a', tool_calls: 1 }] }, 'messages[0].tool_calls'],
  [
    '/api/chat',
    { messages: [{ role: 'a', tool_calls: [{}] }] },
    'messages[0].tool_calls[0].function',
  ],
  ['/api/generate', { prompt: '' }, 'prompt'],
  ['/api/generate', {}, 'prompt'],
  ['/api/generate', { prompt: ['a'] }, 'prompt'],
  ['/api/generate', { prompt: 'a', context: [1, 2] }, 'context'],
  ['/api/generate', { prompt: 'a', template: 'x' }, 'template'],
  ['/api/generate', { prompt: 'a', system: 1 }, 'system'],
  ['/api/generate', { prompt: 'a', raw: 'yes' }, 'raw'],
  ['/api/generate', { prompt: 'a', raw: true, system: 'x' }, 'system'],
  ['/api/generate', { prompt: 'a', raw: true, images: ['iVBORw0KGgo'] }, 'images'],
  ['/api/generate', { prompt: 'a', suffix: 'b', system: 'x' }, 'system'],
  ['/api/generate', { prompt: 'a', width: 512 }, 'width'],
  ['/api/embed', { input: '' }, 'input'],
  ['/api/embed', { input: [] }, 'input'],
  ['/api/embed', { input: 'a', truncate: 1 }, 'truncate'],
  ['/api/embed', { input: 'a', options: { temperature: 1 } }, 'options.temperature'],
  ['/api/embed', { input: 'a', prompt: 'b' }, 'prompt'],
  ['/api/embeddings', { prompt: '' }, 'prompt'],
  ['/api/show', {}, 'path'],
])('%s %j is refused for its %s', (path, body, param) => {
  expectRefused(() => ask(path, body), param, /that speaks openai| must |takes no prompt/);
});

test('fields that ask for nothing are dropped', () => {
  const nothing = {
    ...{ system: '', template: '', suffix: '', format: '', raw: false, think: false },
    ...{ context: [], images: [], options: {}, logprobs: false, no_such_field: null },
  };
  expect(sent(ask('/api/generate', { prompt: 'Hello', ...nothing }))).toEqual({
    ...{ model, messages: hello },
  });
  const raw = sent(ask('/api/generate', { prompt: 'a', ...nothing, raw: true }));
  expect(raw).toEqual({ model, prompt: 'a', max_tokens: null });
});

test.each([
  ['json', { type: 'json_object' }],
  [
    { type: 'object', properties: {} },
    {
      type: 'json_schema',
      json_schema: { name: 'format', schema: { type: 'object', properties: {} } },
    },
  ],
])('format %j', (format, response_format) => {
  for (const asked of [
    ask('/api/chat', { messages: hello, format }),
    ask('/api/generate', { prompt: 'a', format }),
  ]) {
    expect(sent(asked)).toMatchObject({ response_format });
  }
});

test.each([
  ['image/png', '89504e470d0a1a0a00'],
  ['image/jpeg', 'ffd8ffe000'],
  ['image/gif', '4749463839610000'],
  ['image/webp', `52494646${'fb3e1f00'}5745425056503820`],
])('an image of type %s', (type, hex) => {
  const image = Buffer.from(hex, 'hex').toString('base64');
  const part = { type: 'image_url', image_url: { url: `data:${type};base64,${image}` } };
  const content = [{ type: 'text', text: 'What is it?' }, part];
  const chat = { messages: [{ role: 'user', content: 'What is it?', images: [image] }] };
  expect(sent(ask('/api/chat', chat)).messages).toEqual([{ role: 'user', content }]);
  const generate = { prompt: 'What is it?', images: [image] };
  expect(sent(ask('/api/generate', generate)).messages).toEqual([{ role: 'user', content }]);
  const alone = { messages: [{ role: 'user', content: '', images: [image] }] };
  expect(sent(ask('/api/chat', alone)).messages).toEqual([{ role: 'user', content: [part] }]);
});

const called = (name: string, args: object) => ({ function: { name, arguments: args } });

test('tool calls get ids, and their answers find them in order, by name and by id', () => {
  const tools = [{ type: 'function', function: { name: 'weather', parameters: {} } }];
  const messages = [
    ...hello,
    { role: 'assistant', content: '', tool_calls: [called('a', { x: 1 }), called('b', {})] },
    { role: 'tool', content: 'of b', tool_name: 'b' },
    { role: 'tool', content: 'of a' },
    { role: 'assistant', tool_calls: [{ id: 'own', ...called('c', {}) }, called('c', {})] },
    { role: 'tool', content: 'of the second', tool_call_id: 'call_3' },
    { role: 'tool', content: 'of the first', tool_call_id: 'own' },
  ];
  const theirs = (id: string, name: string, args: string) => ({
    ...{ id, type: 'function', function: { name, arguments: args } },
  });
  expect(sent(ask('/api/chat', { messages, tools }))).toEqual({
    model,
    tools,
    messages: [
      ...hello,
      {
        role: 'assistant',
        content: '',
        tool_calls: [theirs('call_1', 'a', '{"x":1}'), theirs('call_2', 'b', '{}')],
      },
      { role: 'tool', tool_call_id: 'call_2', content: 'of b' },
      { role: 'tool', tool_call_id: 'call_1', content: 'of a' },
      {
        role: 'assistant',
        content: '',
        tool_calls: [theirs('own', 'c', '{}'), theirs('call_3', 'c', '{}')],
      },
      { role: 'tool', tool_call_id: 'call_3', content: 'of the second' },
      { role: 'tool', tool_call_id: 'own', content: 'of the first' },
    ],
  });
});

test('an answer to no open call is refused', () => {
  const assistant = { role: 'assistant', tool_calls: [called('a', {})] };
  const twice = [assistant, { role: 'tool', content: 'x' }, { role: 'tool', content: 'y' }];
  expectRefused(() => ask('/api/chat', { messages: twice }), 'messages[2]');
  const other = [assistant, { role: 'tool', content: 'x', tool_name: 'b' }];
  expectRefused(() => ask('/api/chat', { messages: other }), 'messages[1]');
});

test('numbers keep their spelling, in the arguments of calls too', () => {
  const body =
    '{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"a",' +
    '"arguments":{"id":12345678901234567890,"x":1.0}}}]}],' +
    '"options":{"seed":9007199254740993,"temperature":1.0,"num_predict":1e2}}';
  const text = ask('/api/chat', body).request.body ?? '';
  expect(text).toContain('"arguments":"{\\"id\\":12345678901234567890,\\"x\\":1.0}"');
  expect(text).toContain('"seed":9007199254740993,"temperature":1.0,"max_tokens":1e2');
});
