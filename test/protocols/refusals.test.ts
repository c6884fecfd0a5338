/** What a replica refuses is told in the client's own protocol. */

import { expect, test } from 'vitest';
import { chatPath, exchange, hello, json, plain } from './world.ts';

const clients = {
  openai: exchange(chatPath, { messages: hello }, 'ray'),
  ollama: exchange('/api/chat', { messages: hello }, 'openai'),
  ray: exchange('/infer', { text: 'a' }, 'ollama'),
};

test.each([
  [json({ error: { message: 'too long', code: 400 } }), 'too long'],
  [json({ error: 'too long' }), 'too long'],
  [json({ object: 'error', message: 'too long' }), 'too long'],
  [json({ detail: 'too long' }), 'too long'],
  [
    json({ detail: [{ loc: ['query', 'text'], msg: 'Field required' }, { msg: 'b' }, 1] }),
    'query.text: Field required; b',
  ],
  [json('too long'), 'too long'],
  [plain(' too long\n'), 'too long'],
  [plain(''), 'the replica refused the prompt with status 422'],
  [json({ error: {} }), 'the replica refused the prompt with status 422'],
  [json([1]), 'the replica refused the prompt with status 422'],
])('%j', (reply, message) => {
  const told = (front: keyof typeof clients) => clients[front].refusal({ status: 422, ...reply });
  const error = { message, type: 'invalid_request_error', param: null, code: null };
  expect(told('openai')).toEqual(json({ error }));
  expect(told('ollama')).toEqual(json({ error: message }));
  expect(told('ray')).toEqual(plain(message));
});
