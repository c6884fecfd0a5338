/** What an OpenAI replica answers reaches a client of Ollama in Ollama's words. */

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { MalformedReply, ReplicaError } from '../../src/protocols/index.ts';
import { exchange, hello, json, model, streamed } from './world.ts';

beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse('2026-01-02T03:04:05.678Z') });
});
afterEach(() => {
  vi.useRealTimers();
});

const usage = { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 };
const head = { model, created_at: '2026-01-02T03:04:05.678Z' };
const counts = { prompt_eval_count: 3, eval_count: 4 };
const noTime = {
  ...{ total_duration: 0, load_duration: 0, prompt_eval_duration: 0, eval_duration: 0 },
};
const chat = (stream = false) => exchange('/api/chat', { messages: hello }, 'openai', stream);
const generate = (stream = false) => exchange('/api/generate', { prompt: 'a' }, 'openai', stream);
const raw = (stream = false) =>
  exchange('/api/generate', { prompt: 'a', raw: true }, 'openai', stream);

const answer = (message: object, finish_reason: string | null = 'stop') => ({
  choices: [{ index: 0, message, finish_reason }],
  usage,
});

test('a whole answer', () => {
  const reply = json(answer({ role: 'assistant', content: 'Hi' }));
  const end = { done: true, done_reason: 'stop', ...noTime, ...counts };
  const inChat = chat().whole(reply);
  expect(inChat).toMatchObject({ contentType: 'application/json', tokens: 7 });
  expect(JSON.parse(inChat.body)).toEqual({
    ...{ ...head, message: { role: 'assistant', content: 'Hi' }, ...end },
  });
  expect(JSON.parse(generate().whole(reply).body)).toEqual({ ...head, response: 'Hi', ...end });
  const completion = json({ choices: [{ text: 'Hi', finish_reason: 'stop' }], usage });
  expect(JSON.parse(raw().whole(completion).body)).toEqual({ ...head, response: 'Hi', ...end });
});

test.each([
  ['stop', 'stop'],
  ['length', 'length'],
  ['tool_calls', 'stop'],
  [null, 'stop'],
  ['content_filter', 'content_filter'],
])('finish_reason %s is done_reason %s', (finish, done_reason) => {
  const { body } = chat().whole(json(answer({ content: '' }, finish)));
  expect(JSON.parse(body)).toMatchObject({ done: true, done_reason });
});

test('counts are there only when the replica counted', () => {
  const { body, tokens } = chat().whole(json({ ...answer({ content: 'Hi' }), usage: undefined }));
  expect(tokens).toBeUndefined();
  expect(Object.keys(JSON.parse(body))).not.toContain('eval_count');
  expect(Object.keys(JSON.parse(body))).not.toContain('prompt_eval_count');
});

const toolCall = (name: string, args: string, id = 'x') => ({
  ...{ id, type: 'function', function: { name, arguments: args } },
});

test('tool calls and reasoning', () => {
  const message = {
    content: null,
    reasoning_content: 'Hm.',
    tool_calls: [toolCall('a', '{"n":12345678901234567890,"x":1.0}'), toolCall('b', '')],
  };
  const { body } = chat().whole(json(answer(message, 'tool_calls')));
  expect(body).toContain('"arguments":{"n":12345678901234567890,"x":1.0}');
  expect(JSON.parse(body).message).toEqual({
    role: 'assistant',
    content: '',
    thinking: 'Hm.',
    tool_calls: [
      { function: { name: 'a', arguments: { n: 12345678901234567000, x: 1 } } },
      { function: { name: 'b', arguments: {} } },
    ],
  });
});

test.each([
  ['no JSON', 'oops'],
  ['a list', '[]'],
  ['no choice', '{"choices":[]}'],
  ['choices of no use', '{"choices":[1]}'],
  ['arguments that are no JSON', JSON.stringify(answer({ tool_calls: [toolCall('a', '{')] }))],
  ['arguments that are no object', JSON.stringify(answer({ tool_calls: [toolCall('a', '1')] }))],
  ['a call without a name', JSON.stringify(answer({ tool_calls: [{}] }))],
])('an answer that makes no sense: %s', (_, body) => {
  expect(() => chat().whole({ contentType: 'application/json', body })).toThrow(MalformedReply);
});

const chunk = (delta: object, finish_reason: string | null = null) => ({
  choices: [{ index: 0, delta, finish_reason }],
});

test('a stream, with the times of the exchange', () => {
  const asked = chat(true);
  const reader = asked.reader();
  const said: unknown[] = [];
  const hear = (event: object | string) => {
    const data = typeof event === 'string' ? event : JSON.stringify(event);
    said.push(...reader.next(data).map((text) => JSON.parse(text)));
  };
  vi.advanceTimersByTime(100);
  hear(chunk({ role: 'assistant', content: '' }));
  hear(chunk({ content: 'H' }));
  vi.advanceTimersByTime(50);
  hear(chunk({ content: 'i' }));
  hear(chunk({}, 'length'));
  hear({ choices: [], usage });
  hear('[DONE]');
  hear(chunk({ content: 'late' }));
  expect(reader.end()).toEqual([]);
  expect(reader.tokens).toBe(7);
  const later = (ms: number) => new Date(Date.parse(head.created_at) + ms).toISOString();
  const piece = (content: string, ms: number) => ({
    ...{ model, created_at: later(ms), message: { role: 'assistant', content }, done: false },
  });
  expect(said).toEqual([
    piece('H', 100),
    piece('i', 150),
    {
      ...{ ...piece('', 150), done: true, done_reason: 'length', ...counts, load_duration: 0 },
      ...{ total_duration: 150e6, prompt_eval_duration: 100e6, eval_duration: 50e6 },
    },
  ]);
});

test.each([
  ['chat', generate, chunk({ content: 'Hi' })],
  ['completions', raw, { choices: [{ index: 0, text: 'Hi', finish_reason: null }] }],
])('a stream of generate over %s', (_, ask, event) => {
  const finish = { choices: [{ index: 0, delta: {}, text: '', finish_reason: 'stop' }] };
  // Without [DONE] and without usage: the finish is the end.
  expect(streamed(ask(true), [event, finish])).toMatchObject({
    said: [
      { ...head, response: 'Hi', done: false },
      { ...head, response: '', done: true, done_reason: 'stop' },
    ],
    tokens: undefined,
  });
});

test('tool calls that come in pieces are told in one', () => {
  const pieces = (index: number, called: object) =>
    chunk({ tool_calls: [{ index, function: called }] });
  const events = [
    chunk({ content: 'Let me see.' }),
    pieces(0, { name: 'a', arguments: '' }),
    pieces(0, { arguments: '{"x":' }),
    pieces(1, { name: 'b', arguments: '{}' }),
    pieces(0, { arguments: '1}' }),
    chunk({}, 'tool_calls'),
    '[DONE]',
  ];
  const tool_calls = [
    { function: { name: 'a', arguments: { x: 1 } } },
    { function: { name: 'b', arguments: {} } },
  ];
  expect(streamed(chat(true), events).said).toMatchObject([
    { message: { content: 'Let me see.' }, done: false },
    { message: { content: '', tool_calls }, done: false },
    { message: { content: '' }, done: true, done_reason: 'stop' },
  ]);
});

test('tool calls without an index, whole and by their ids', () => {
  const whole = (id: string) => ({ tool_calls: [toolCall('a', '{}', id)] });
  const { said } = streamed(chat(true), [chunk(whole('x')), chunk(whole('y'), 'tool_calls')]);
  const call = { function: { name: 'a', arguments: {} } };
  expect(said[0]).toMatchObject({ message: { tool_calls: [call, call] } });
});

test('reasoning goes on as thinking', () => {
  const { said } = streamed(chat(true), [chunk({ reasoning: 'Hm.' }), chunk({}, 'stop')]);
  expect(said[0]).toMatchObject({ message: { content: '', thinking: 'Hm.' }, done: false });
});

test.each([
  ['nothing', []],
  ['no finish', [chunk({ content: 'a' })]],
  ['a broken event', ['{"choices"']],
  ['cut arguments', [chunk({ tool_calls: [toolCall('a', '{"x"')] }), chunk({}, 'tool_calls')]],
])('a stream with %s is malformed', (_, events) => {
  expect(() => streamed(chat(true), events)).toThrow(MalformedReply);
});

test('an error within a stream', () => {
  const error = { error: { message: 'out of memory' } };
  expect(() => streamed(chat(true), [chunk({ content: 'a' }), error])).toThrow(
    new ReplicaError('out of memory'),
  );
});

const vectors = {
  data: [
    { index: 1, embedding: [0.3, 0.4] },
    { index: 0, embedding: [0.1, 0.2] },
  ],
  usage: { prompt_tokens: 5, total_tokens: 5 },
};

test('embeddings, in both spellings', () => {
  const embed = exchange('/api/embed', { input: ['a', 'b'] }, 'openai', true);
  const { body, tokens } = embed.whole(json(vectors));
  const expected = {
    ...{ model, total_duration: 0, load_duration: 0, prompt_eval_count: 5 },
    embeddings: vectors.data.toReversed().map(({ embedding }) => embedding),
  };
  expect(tokens).toBe(5);
  expect(JSON.parse(body)).toEqual(expected);
  expect(streamed(embed, [vectors])).toMatchObject({ said: [expected], tokens: 5 });
  const older = exchange('/api/embeddings', { prompt: 'a' }, 'openai').whole(json(vectors));
  expect(JSON.parse(older.body)).toEqual({ embedding: [0.1, 0.2] });
});

test.each([{}, { data: [] }, { data: [{ embedding: 'AAAA' }] }])('no embeddings: %j', (reply) => {
  const embed = exchange('/api/embed', { input: 'a' }, 'openai');
  expect(() => embed.whole(json(reply))).toThrow(MalformedReply);
});
