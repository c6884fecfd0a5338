/** A client that knows only a text, at any replica, gets plain text. */

import { expect, test } from 'vitest';
import { MalformedReply, ReplicaError, type Target } from '../../src/protocols/index.ts';
import { exchange, expectRefused, hello, json, model, plain, sent, textSent } from './world.ts';

const infer = (text: unknown, target: Target) => exchange('/infer', { text }, target);
const bare: Target = { protocol: 'ray' };
const mistral: Target = { protocol: 'ray', template: 'mistral-instruct' };

test.each([
  ['Hello & more', bare, 'Hello & more'],
  ['[INST] Hello [/INST]', bare, '[INST] Hello [/INST]'],
  ['Hello', mistral, '[INST] Hello [/INST]'],
  ['[INST] Hello [/INST]', mistral, '[INST] Hello [/INST]'],
  ['<s>[INST] Hello [/INST]', mistral, '<s>[INST] Hello [/INST]'],
])('%s at a Ray replica', (text, target, expected) => {
  const asked = infer(text, target);
  expect(asked.request).toMatchObject({ method: 'GET' });
  expect(asked.replyFraming).toBe('whole');
  expect(textSent(asked)).toBe(expected);
});

test('what a Ray replica says is untouched', () => {
  for (const reply of [plain('"Hi"'), json('Hi'), json({ text: 'Hi' })]) {
    expect(infer('a', bare).whole(reply)).toEqual({ ...reply, tokens: undefined });
    expect(infer('a', bare).refusal({ status: 400, ...reply })).toEqual(reply);
  }
  expect(infer('a', bare).whole({ contentType: '', body: 'Hi' })).toMatchObject(plain('Hi'));
});

test.each([
  ['Hello', 'Hello'],
  ['[INST] Hello [/INST]', 'Hello'],
  ['<s>[INST]Hello[/INST] ', 'Hello'],
  ['[INST]', '[INST]'],
  ['[INST] a [/INST] b', '[INST] a [/INST] b'],
  ['[INST] a [/INST] b</s>[INST] c [/INST]', '[INST] a [/INST] b</s>[INST] c [/INST]'],
])('%s at replicas that are asked otherwise', (text, content) => {
  const openai = infer(text, { protocol: 'openai', model: 'there' });
  expect(openai.request).toMatchObject({ method: 'POST', path: '/v1/chat/completions' });
  expect(sent(openai)).toEqual({ model: 'there', messages: [{ role: 'user', content }] });
  const ollama = infer(text, { protocol: 'ollama' });
  expect(ollama.request).toMatchObject({ method: 'POST', path: '/api/generate' });
  expect(sent(ollama)).toEqual({ model, prompt: content, stream: false });
});

const usage = { total_tokens: 7 };

test('the answer is plain text', () => {
  const openai = (content: unknown) =>
    infer('a', { protocol: 'openai' }).whole(json({ choices: [{ message: { content } }], usage }));
  expect(openai('Hi')).toEqual({ ...plain('Hi'), tokens: 7 });
  expect(openai(null)).toEqual({ ...plain(''), tokens: 7 });
  expect(() => openai(undefined)).toThrow(MalformedReply);
  const ollama = (reply: object) => infer('a', { protocol: 'ollama' }).whole(json(reply));
  expect(ollama({ response: 'Hi', prompt_eval_count: 3, eval_count: 4 })).toEqual({
    ...plain('Hi'),
    tokens: 7,
  });
  expect(() => ollama({})).toThrow(MalformedReply);
  expect(() => ollama({ error: 'no' })).toThrow(new ReplicaError('no'));
});

test.each([
  [{}, 'text'],
  [{ text: '' }, 'text'],
  [{ text: 1 }, 'text'],
  [{ text: 'a', messages: hello }, 'messages'],
])('%j is refused for its %s', (body, param) => {
  for (const protocol of ['openai', 'ollama', 'ray'] as const) {
    expectRefused(() => exchange('/infer', body, protocol), param);
  }
});

test('there is no stream', () => {
  for (const protocol of ['openai', 'ollama', 'ray'] as const) {
    expect(() => infer('a', { protocol }).reader()).toThrow('no streams');
  }
});
