/** Clients of OpenAI's and Ollama's APIs at a replica that takes one text and gives one back. */

import { expect, test } from 'vitest';
import { MalformedReply, type Target } from '../../src/protocols/index.ts';
import {
  chatPath,
  exchange,
  expectRefused,
  hello,
  json,
  model,
  plain,
  streamed,
  textSent,
} from './world.ts';

const bare: Target = { protocol: 'ray' };
const mistral: Target = { protocol: 'ray', template: 'mistral-instruct' };
const user = (content: unknown) => ({ role: 'user', content });
const assistant = (content: unknown) => ({ role: 'assistant', content });
const system = (content: unknown) => ({ role: 'system', content });

const conversations = [
  [[user('u1')], '[INST] u1 [/INST]'],
  [[user('u1'), assistant('a1'), user('u2')], '[INST] u1 [/INST] a1</s>[INST] u2 [/INST]'],
  [[system('s'), user('u1')], '[INST] s\n\nu1 [/INST]'],
  [
    [system('s'), system('t'), user('u1'), assistant('a1'), user('u2')],
    '[INST] s\n\nt\n\nu1 [/INST] a1</s>[INST] u2 [/INST]',
  ],
] as const;

test.each(conversations)('a conversation in the form of Mistral-Instruct: %j', (messages, text) => {
  for (const path of [chatPath, '/api/chat']) {
    const asked = exchange(path, { model, messages }, mistral);
    expect(asked.request).toMatchObject({
      method: 'GET',
      path: expect.stringMatching(/^\/infer\?/),
    });
    expect(asked.request.body).toBeUndefined();
    expect(asked.replyFraming).toBe('whole');
    expect(textSent(asked)).toBe(text);
  }
});

test.each([
  [[user('a'), user('b')], 'messages[1]'],
  [[user('a'), assistant('b')], 'messages[1]'],
  [[assistant('a'), user('b')], 'messages[0]'],
  [[user('a'), system('s'), user('b')], 'messages[1]'],
  [[system('s')], 'messages[0]'],
  [[user('a'), { role: 'tool', content: 'x' }, user('b')], 'messages[1]'],
])('what does not alternate is refused: %j', (messages, param) => {
  for (const path of [chatPath, '/api/chat']) {
    expectRefused(() => exchange(path, { messages }, mistral), param, /that speaks ray/);
  }
});

test.each([
  [[system('s'), user('a')], 'messages[0]'],
  [[user('a'), assistant('b'), user('c')], 'messages[1]'],
  [[user('a'), user('b')], 'messages[1]'],
])('without a template only one message of a user is taken, not %j', (messages, param) => {
  for (const path of [chatPath, '/api/chat']) {
    expectRefused(() => exchange(path, { messages }, bare), param, /pool has no template/);
    expect(textSent(exchange(path, { messages: [user('as it is')] }, bare))).toBe('as it is');
  }
});

test.each([
  [
    chatPath,
    {
      messages: [
        user([
          { type: 'text', text: 'a' },
          { type: 'text', text: 'b' },
        ]),
      ],
    },
    'ab',
  ],
  ['/v1/completions', { prompt: 'as it is' }, 'as it is'],
  ['/v1/completions', { prompt: ['as it is'] }, 'as it is'],
  ['/v1/completions', { prompt: 'ü & # %\n🎉\ud800' }, 'ü & # %\n🎉\ufffd'],
  ['/api/generate', { prompt: 'as it is' }, 'as it is'],
  ['/api/generate', { prompt: 'as it is', raw: true }, 'as it is'],
])('%s %j asks for %s', (path, body, text) => {
  expect(textSent(exchange(path, body, bare))).toBe(text);
});

test('a template is for what is not raw', () => {
  const asked = (path: string, body: object) => textSent(exchange(path, body, mistral));
  expect(asked('/v1/completions', { prompt: 'a' })).toBe('a');
  expect(asked('/api/generate', { prompt: 'a', raw: true })).toBe('a');
  expect(asked('/api/generate', { prompt: 'a' })).toBe('[INST] a [/INST]');
  expect(asked('/api/generate', { prompt: 'a', system: 's' })).toBe('[INST] s\n\na [/INST]');
});

const openaiRefused: Record<string, unknown> = {
  ...{ temperature: 0.5, top_p: 1, max_tokens: 5, max_completion_tokens: 5, stop: 'x' },
  ...{ tools: [{}], tool_choice: 'auto', response_format: { type: 'text' }, n: 2, seed: 1 },
  ...{ logprobs: true, presence_penalty: 0, frequency_penalty: 0, logit_bias: {}, best_of: 2 },
  ...{ suffix: 'x', echo: true, top_k: 1, no_such_field: 1, constructor: 1 },
};

test.each(Object.entries(openaiRefused))('%s is refused by name', (name, value) => {
  const message = new RegExp(`^SluiceError: ${name} cannot be translated .* speaks ray`);
  for (const body of [{ messages: hello }, { prompt: 'a' }]) {
    const path = 'prompt' in body ? '/v1/completions' : chatPath;
    expectRefused(() => exchange(path, { ...body, [name]: value }, bare), name, message);
  }
});

test('what does not change the answer is dropped', () => {
  const neutral = {
    ...{ model, stream: true, stream_options: { include_usage: true }, user: 'u', store: true },
    ...{ safety_identifier: 'x', metadata: { a: 'b' }, service_tier: 'auto', n: 1, echo: false },
    ...{ logprobs: false, temperature: null, tools: [], stop: [], prompt_cache_key: 'k' },
  };
  expect(textSent(exchange(chatPath, { messages: hello, ...neutral }, bare))).toBe('Hello');
  expect(textSent(exchange('/v1/completions', { prompt: 'Hello', ...neutral }, bare))).toBe(
    'Hello',
  );
  const echoed = { ...assistant('a'), refusal: null, annotations: [], tool_calls: null };
  const messages = [user('u'), echoed, user('v')];
  expect(textSent(exchange(chatPath, { messages }, mistral))).toContain(' a</s>');
});

test.each([
  [chatPath, {}, 'messages'],
  [chatPath, { messages: [] }, 'messages'],
  [chatPath, { messages: [1] }, 'messages[0]'],
  [chatPath, { messages: [{ content: 'a' }] }, 'messages[0].role'],
  [chatPath, { messages: [user(1)] }, 'messages[0].content'],
  [chatPath, { messages: [user([1])] }, 'messages[0].content[0]'],
  [chatPath, { messages: [user([{ type: 'image_url' }])] }, 'messages[0].content[0]'],
  [chatPath, { messages: [user([{ type: 'text', text: 'a', x: 1 }])] }, 'messages[0].content[0].x'],
  [chatPath, { messages: [{ ...user('a'), name: 'Ada' }] }, 'messages[0].name'],
  [chatPath, { messages: [{ ...assistant('a'), tool_calls: [{}] }] }, 'messages[0].tool_calls'],
  ['/v1/completions', {}, 'prompt'],
  ['/v1/completions', { prompt: '' }, 'prompt'],
  ['/v1/completions', { prompt: ['a', 'b'] }, 'prompt'],
  ['/v1/completions', { prompt: [1, 2] }, 'prompt'],
  ['/v1/embeddings', { input: 'a' }, 'input'],
  ['/api/embed', { input: 'a' }, 'input'],
  ['/api/embeddings', { prompt: 'a' }, 'prompt'],
  ['/api/show', {}, 'path'],
  ['/api/generate', { prompt: '' }, 'prompt'],
  ['/api/generate', { prompt: 'a', system: 's', raw: true }, 'system'],
  ['/api/generate', { prompt: 'a', system: 's' }, 'system'],
  ['/api/generate', { prompt: 'a', suffix: 's' }, 'suffix'],
  ['/api/generate', { prompt: 'a', images: ['x'] }, 'images'],
  ['/api/generate', { prompt: 'a', context: [1] }, 'context'],
  ['/api/generate', { prompt: 'a', format: 'json' }, 'format'],
  ['/api/generate', { prompt: 'a', think: true }, 'think'],
  ['/api/generate', { prompt: 'a', options: { temperature: 1 } }, 'options.temperature'],
  ['/api/generate', { prompt: 'a', options: { num_predict: 9 } }, 'options.num_predict'],
  ['/api/chat', { messages: hello, options: { seed: 1 } }, 'options.seed'],
  ['/api/chat', { messages: hello, tools: [{}] }, 'tools'],
  ['/api/chat', { messages: [{ content: 'a' }] }, 'messages[0].role'],
  ['/api/chat', { messages: [{ ...user('a'), images: ['x'] }] }, 'messages[0].images'],
])('%s %j is refused for its %s', (path, body, param) => {
  expectRefused(() => exchange(path, body, bare), param, /that speaks ray| must |takes no prompt/);
});

test('a raw prompt has no system text, whatever the template', () => {
  const body = { prompt: 'a', system: 's', raw: true };
  expectRefused(() => exchange('/api/generate', body, mistral), 'system', /raw/);
});

test("Ollama's options of loading, and limits that are none, are dropped", () => {
  const options = { num_ctx: 4096, num_gpu: 1, num_predict: -1, temperature: null };
  const body = { prompt: 'Hello', options, keep_alive: 0, stream: true, format: '' };
  expect(textSent(exchange('/api/generate', body, bare))).toBe('Hello');
});

test.each([
  ['plain text', plain('"Hi"'), '"Hi"'],
  ['a JSON string', { contentType: 'application/json', body: '"H\\u00fc\\n"' }, 'Hü\n'],
  ['no content type', { contentType: '', body: 'Hi' }, 'Hi'],
  ['nothing', plain(''), ''],
])('the answer is %s', (_, reply, content) => {
  const chat = exchange(chatPath, { messages: hello }, bare);
  expect(JSON.parse(chat.whole(reply).body).choices[0].message.content).toBe(content);
  const [piece] = chat.reader(reply.contentType).next(reply.body);
  expect(JSON.parse(piece ?? '').choices[0].delta.content).toBe(content);
});

test.each([
  json({ text: 'Hi' }),
  json(['Hi']),
  { contentType: 'application/json', body: 'Hi' },
  { contentType: 'text/html', body: '<p>' },
])('an answer of %j is malformed', (reply) => {
  const asked = exchange(chatPath, { messages: hello }, bare);
  expect(() => asked.whole(reply)).toThrow(MalformedReply);
  expect(() => asked.reader(reply.contentType).next(reply.body)).toThrow(MalformedReply);
});

test('a stream is made of an answer in one piece, which has to come, and once', () => {
  for (const path of [chatPath, '/api/chat']) {
    const reader = exchange(path, { messages: hello }, bare, true).reader();
    expect(() => reader.end()).toThrow(MalformedReply);
    reader.next('Hi');
    expect(reader.end()).toEqual([]);
    expect(() => reader.next('Hi')).toThrow(MalformedReply);
  }
});

test.each([
  [chatPath, { messages: hello }, 'chat.completion', 'chatcmpl-'],
  ['/v1/completions', { prompt: 'a' }, 'text_completion', 'cmpl-'],
])("an answer in OpenAI's words: %s", (path, body, object, prefix) => {
  const isChat = path === chatPath;
  const { contentType, body: text, tokens } = exchange(path, body, bare).whole(plain('Hi'));
  expect({ contentType, tokens }).toEqual({ contentType: 'application/json', tokens: undefined });
  const head = { id: expect.stringContaining(prefix), created: expect.any(Number), model };
  const said = isChat
    ? { message: { role: 'assistant', content: 'Hi', refusal: null } }
    : { text: 'Hi' };
  const choice = { index: 0, logprobs: null };
  expect(JSON.parse(text)).toEqual({
    ...{ ...head, object, choices: [{ ...choice, ...said, finish_reason: 'stop' }] },
  });
  const first = isChat ? { delta: { role: 'assistant', content: 'Hi' } } : { text: 'Hi' };
  const last = isChat ? { delta: {} } : { text: '' };
  const chunk = { ...head, object: isChat ? `${object}.chunk` : object };
  const stream = streamed(exchange(path, body, bare, true), ['Hi']);
  expect(stream.said).toEqual([
    { ...chunk, choices: [{ ...choice, ...first, finish_reason: null }] },
    { ...chunk, choices: [{ ...choice, ...last, finish_reason: 'stop' }] },
  ]);
  expect(stream.said[0]?.id).toBe(stream.said[1]?.id);
});

test.each([
  ['/api/chat', { messages: hello }],
  ['/api/generate', { prompt: 'a' }],
])("an answer in Ollama's words: %s", (path, body) => {
  const said = (content: string) =>
    path === '/api/chat' ? { message: { role: 'assistant', content } } : { response: content };
  const head = { model, created_at: expect.stringMatching(/^\d{4}-.*Z$/) };
  const end = {
    ...{ done: true, done_reason: 'stop', total_duration: expect.any(Number), load_duration: 0 },
    ...{ prompt_eval_duration: 0, eval_duration: expect.any(Number) },
  };
  const whole = JSON.parse(exchange(path, body, bare).whole(plain('Hi')).body);
  expect(whole).toEqual({ ...head, ...said('Hi'), ...end });
  expect(streamed(exchange(path, body, bare, true), ['Hi']).said).toEqual([
    { ...head, ...said('Hi'), done: false },
    { ...head, ...said(''), ...end },
  ]);
});
