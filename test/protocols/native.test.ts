/** A prompt at a replica of its own protocol, and the reply, are passed on as they came. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  isNative,
  MalformedReply,
  type Protocol,
  ReplicaError,
} from '../../src/protocols/index.ts';
import { chatPath, exchange, expectRefused, hello, json, model, sent, streamed } from './world.ts';

const paths = {
  openai: ['/v1/chat/completions', '/v1/completions', '/v1/embeddings'],
  ollama: ['/api/generate', '/api/chat', '/api/embed', '/api/embeddings'],
  ray: ['/infer'],
};
const served: Record<Protocol, string[]> = {
  openai: paths.openai,
  ollama: [...paths.ollama, ...paths.openai],
  ray: paths.ray,
};

test.each(Object.entries(served))('%s serves its own paths', (protocol, own) => {
  for (const path of [...Object.values(paths).flat(), '/v1/models', '/', 'constructor']) {
    expect(isNative(protocol as Protocol, path), path).toBe(own.includes(path));
  }
});

const pairs: [string, Protocol][] = [
  ...paths.openai.map((path): [string, Protocol] => [path, 'openai']),
  ...paths.openai.map((path): [string, Protocol] => [path, 'ollama']),
  ...paths.ollama.map((path): [string, Protocol] => [path, 'ollama']),
];

test.each(pairs)('%s at %s goes on byte for byte, whatever is in it', (path, protocol) => {
  const body = `{ "model":"mistral", "stream" : false, "x": [1.0, 12345678901234567890, -0] }`;
  const { request, replyFraming } = exchange(path, body, protocol);
  expect(request).toEqual({ method: 'POST', path, body });
  expect(replyFraming).toBe('whole');
});

test('OpenAI assumes no stream where nothing is said, Ollama one', () => {
  const body = '{ "model": "mistral" }';
  expect(exchange(chatPath, body, 'openai').request.body).toBe(body);
  expect(exchange('/api/chat', body, 'ollama', true).request.body).toBe(body);
  expect(exchange('/api/embed', body, 'ollama').request.body).toBe(body);
  expect(sent(exchange('/api/chat', body, 'ollama'))).toEqual({ model, stream: false });
  expect(sent(exchange('/api/generate', { model, stream: null }, 'ollama'))).toEqual({
    model,
    stream: false,
  });
  expect(exchange('/api/chat', body, 'ollama', true).replyFraming).toBe('ndjson');
  expect(exchange(chatPath, body, 'openai', true).replyFraming).toBe('sse');
});

test.each([
  ['another name there', { model }, 'hf/mistral', { model: 'hf/mistral' }],
  ['no name in the body', { top_p: 1 }, undefined, { top_p: 1, model }],
  ['a stream that is not wanted', { model, stream: true }, undefined, { model, stream: false }],
  ['options of a stream without one', { model, stream_options: {} }, undefined, { model }],
])('what has to change is changed: %s', (_, body, there, expected) => {
  expect(sent(exchange(chatPath, body, { protocol: 'openai', model: there }))).toEqual(expected);
});

test.each([
  ['nothing', { model, stream: true }, { include_usage: true }],
  ['null', { model, stream: true, stream_options: null }, { include_usage: true }],
  [
    'other options',
    { model, stream: true, stream_options: { include_usage: false, continuous_usage_stats: true } },
    { include_usage: true, continuous_usage_stats: true },
  ],
])('a stream is asked for its usage when the client said %s', (_, body, expected) => {
  const asked = exchange(chatPath, body, 'openai', true);
  expect(sent(asked)).toEqual({ model, stream: true, stream_options: expected });
});

test('a stream whose client asked for the usage goes on byte for byte', () => {
  const body = '{"model":"mistral", "stream":true, "stream_options":{"include_usage":true}}';
  expect(exchange(chatPath, body, 'openai', true).request.body).toBe(body);
});

test('what changes leaves every number and text as it was spelt', () => {
  const rest =
    '"seed":12345678901234567890,"a":[1.0,1e3,-0,0.0000001,1E+2,-0.0,1.50,123456789012345678],' +
    '"id":9007199254740993,"t":"1.0 and \\u00e9","__proto__":{"b":2.0}';
  const { request } = exchange(chatPath, `{"model":"x",${rest}}`, 'openai');
  expect(request.body).toBe(`{"model":"mistral",${rest}}`.replace('\\u00e9', 'é'));
});

test('any number survives, however it is spelt', () => {
  const digits = fc.stringMatching(/^\d{1,25}$/);
  const number = fc
    .tuple(
      fc.constantFrom('', '-'),
      fc.stringMatching(/^(0|[1-9]\d{0,25})$/),
      fc.option(digits, { nil: undefined }),
      fc.stringMatching(/^([eE][+-]?\d{1,3})?$/),
    )
    .map(([sign, whole, fraction, exponent]) =>
      [sign, whole, fraction === undefined ? '' : `.${fraction}`, exponent].join(''),
    );
  fc.assert(
    fc.property(number, (text) => {
      const { request } = exchange(chatPath, `{"n":${text}}`, 'openai');
      expect(request.body).toBe(`{"n":${text},"model":"mistral"}`);
    }),
    { numRuns: 2000 },
  );
});

test('any body says the same after a change', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (given) => {
      const body = { ...given, model: 'x' };
      const expected = { ...body, model, stream_options: undefined };
      const read = sent(exchange(chatPath, { ...body, stream: false }, 'openai'));
      expect(read).toEqual(JSON.parse(JSON.stringify({ ...expected, stream: false })));
    }),
  );
});

test('names that Ollama would take for the agreed ones are left out', () => {
  const kept = { model, top_p: 1, format: 'json', stream: false };
  const body = {
    Model: 'other',
    model,
    top_p: 1,
    format: 'json',
    STREAM: true,
    ſtream: true,
    stream: false,
  };
  expect(sent(exchange('/api/chat', body, 'ollama'))).toEqual(kept);
  expect(sent(exchange(chatPath, body, 'ollama'))).toEqual(kept);
  expect(sent(exchange(chatPath, body, 'openai'))).toEqual(body);
});

test.each(['{', '', '[]', '"a"', 'null', '12345678901234567890'])(
  'a body of %s is refused',
  (body) => {
    for (const [path, protocol] of pairs)
      expectRefused(() => exchange(path, body, protocol), 'body');
  },
);

const usage = { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 };
const chunk = (content: string, finish_reason: string | null = null, index = 0) => ({
  choices: [{ index, delta: { content }, finish_reason }],
});

test.each([
  [chatPath, 'openai', { choices: [], usage }, 7],
  [chatPath, 'openai', { choices: [], usage: null, error: null }, undefined],
  ['/v1/embeddings', 'ollama', { data: [], usage: { total_tokens: 5 } }, 5],
  ['/api/chat', 'ollama', { done: true, prompt_eval_count: 3, eval_count: 4 }, 7],
  ['/api/generate', 'ollama', { done: true, eval_count: 4 }, 4],
  ['/api/embed', 'ollama', { embeddings: [], prompt_eval_count: 3 }, 3],
  ['/api/chat', 'ollama', { done: true, eval_count: 'x' }, undefined],
] as const)('a whole reply of %s at %s is untouched', (path, protocol, reply, tokens) => {
  const asked = exchange(path, { model, stream: false }, protocol);
  const body = JSON.stringify(reply, null, 2);
  const given = { contentType: 'application/json; charset=utf-8', body };
  expect(asked.whole(given)).toEqual({ ...given, tokens });
  expect(streamed(asked, [body])).toEqual({
    said: [reply],
    texts: [expect.not.stringContaining('\n')],
    tokens,
  });
});

test('a refusal is untouched, whatever it is', () => {
  const reply = { contentType: 'text/html', body: '<h1>no</h1>' };
  for (const [path, protocol] of pairs) {
    expect(exchange(path, { model }, protocol).refusal({ status: 400, ...reply })).toEqual(reply);
  }
});

test('the chunks of a stream are passed on byte for byte, the usage only to who asked', () => {
  const texts = ['{ "choices": [{"index":0,"delta":{"role":"assistant","tool_calls":[]}}] }'];
  texts.push(JSON.stringify(chunk('ü', 'stop')), JSON.stringify({ choices: [], usage }));
  const hiding = exchange(chatPath, { model, stream: true }, 'openai', true);
  const shown = { model, stream: true, stream_options: { include_usage: true } };
  const showing = exchange(chatPath, shown, 'openai', true);
  const given = [...texts, '[DONE]'];
  expect(streamed(hiding, given)).toMatchObject({ texts: texts.slice(0, 2), tokens: 7 });
  expect(streamed(showing, given)).toMatchObject({ texts, tokens: 7 });
});

test('usage beside text, and chunks without choices, are passed on', () => {
  const events = [
    { choices: [], prompt_filter_results: [] },
    { ...chunk('a'), usage: null },
    { ...chunk('b', 'stop'), usage },
  ];
  const asked = exchange('/v1/completions', { model }, 'ollama', true);
  expect(streamed(asked, events)).toMatchObject({ said: events, tokens: 7 });
});

test('data of several lines becomes one line that says the same', () => {
  const asked = exchange(chatPath, { model }, 'openai', true);
  const { texts, said } = streamed(asked, ['{"choices":\n[]}', '[DONE]']);
  expect(texts).toEqual(['{"choices": []}']);
  expect(said).toEqual([{ choices: [] }]);
});

test.each([
  ['[DONE]', ['[DONE]', JSON.stringify(chunk('late'))], 0],
  ['a finish of every choice', [chunk('a', 'stop', 0), chunk('b', 'length', 1)], 2],
])('a stream is complete with %s', (_, events, count) => {
  expect(streamed(exchange(chatPath, { model }, 'openai', true), events).said).toHaveLength(count);
});

test.each([
  ['nothing', []],
  ['no finish', [chunk('a')]],
  ['one choice of two', [chunk('a', 'stop', 0), chunk('b', null, 1)]],
  ['usage alone', [{ choices: [], usage }]],
])('a stream that ends with %s is cut off', (_, events) => {
  const asked = exchange(chatPath, { model }, 'openai', true);
  expect(() => streamed(asked, events)).toThrow(MalformedReply);
});

test('the lines of a stream are passed on byte for byte', () => {
  const texts = ['{"message": {"content":"é"}, "done": false}', '{"done":true,"eval_count":4}'];
  const asked = exchange('/api/chat', { model }, 'ollama', true);
  expect(streamed(asked, [...texts, '{"after":"the end"}'])).toMatchObject({ texts, tokens: 4 });
  expect(() => streamed(asked, texts.slice(0, 1))).toThrow(MalformedReply);
});

const both: [string, Protocol][] = [
  [chatPath, 'openai'],
  ['/api/chat', 'ollama'],
];

test.each(both)('what %s at %s answers must be a JSON object', (path, protocol) => {
  for (const body of ['', '{', '[]', '"a"', 'null', '{"a":1} x', '<html>']) {
    const whole = () => exchange(path, { model }, protocol).whole({ contentType: '', body });
    expect(whole, body).toThrow(MalformedReply);
    const stream = () => exchange(path, { model }, protocol, true).reader().next(body);
    expect(stream, body).toThrow(MalformedReply);
  }
});

test.each([
  [{ error: 'out of memory' }, 'out of memory'],
  [{ error: { message: 'out of memory', code: 500 } }, 'out of memory'],
  [{ error: { code: 500 } }, 'the replica reported an error'],
])('an error within an answer is told: %j', (reply, message) => {
  for (const [path, protocol] of both) {
    const whole = () => exchange(path, { model }, protocol).whole(json(reply));
    expect(whole).toThrow(new ReplicaError(message));
    const stream = () => streamed(exchange(path, { model }, protocol, true), [reply]);
    expect(stream).toThrow(new ReplicaError(message));
  }
});

test("vLLM's older errors are errors", () => {
  const asked = exchange(chatPath, { model, messages: hello }, 'openai', true);
  const error = { object: 'error', message: 'too long', type: 'BadRequestError' };
  expect(() => streamed(asked, [error])).toThrow(new ReplicaError('too long'));
});

test('a path of no prompt is refused', () => {
  expectRefused(() => exchange('/v1/models', {}, 'openai'), 'path');
});
