/** Every client's prompt at every replica, over HTTP: the simulated replica understands all of it. */

import { expect, test } from 'vitest';
import { type Exchange, type Protocol, splitter } from '../../src/protocols/index.ts';
import { quickReplica } from '../simulator/world.ts';
import { exchange, hello, model } from './world.ts';

const prompts: [string, object][] = [
  ['/v1/chat/completions', { model, messages: hello }],
  ['/v1/completions', { model, prompt: 'Hello' }],
  ['/api/chat', { model, messages: hello }],
  ['/api/generate', { model, prompt: 'Hello' }],
  ['/api/generate', { model, prompt: 'Hello', raw: true, options: { num_predict: -1 } }],
  ['/infer', { text: 'Hello' }],
];
const protocols: Protocol[] = ['openai', 'ollama', 'ray'];
const pairs = prompts.flatMap(([path, body]) =>
  protocols.map((protocol): [string, Protocol, object] => [path, protocol, body]),
);

async function asked(url: string, { request }: Exchange): Promise<Response> {
  const { method, path, body = null } = request;
  const response = await fetch(`${url}${path}`, { method, body });
  expect(response.status).toBe(200);
  return response;
}

const typeOf = (response: Response) => response.headers.get('content-type') ?? '';

/** The text of a reply or of an event, in any of the protocols. */
function textIn(body: string): string {
  if (!body.startsWith('{')) return body;
  const { choices, message, response } = JSON.parse(body);
  const { delta, text, message: said } = choices?.[0] ?? {};
  return (said ?? delta ?? message)?.content ?? text ?? response ?? '';
}

test.each(pairs)('%s at %s, whole', async (path, protocol, body) => {
  const { url } = await quickReplica();
  const how = exchange(path, body, protocol);
  const response = await asked(url, how);
  const whole = how.whole({ contentType: typeOf(response), body: await response.text() });
  expect(textIn(whole.body).length).toBeGreaterThan(100);
  expect(whole.tokens).toEqual(protocol === 'ray' ? undefined : expect.any(Number));
});

const streams = pairs.filter(([path]) => path !== '/infer');

test.each(streams)('%s at %s, streamed', async (path, protocol, body) => {
  const { url } = await quickReplica({ streamTokens: 20 });
  const how = exchange(path, body, protocol, true);
  const response = await asked(url, how);
  const reader = how.reader(typeOf(response));
  const events: string[] = [];
  if (how.replyFraming === 'whole') {
    events.push(...reader.next(await response.text()));
  } else {
    const split = splitter(how.replyFraming, 1e6);
    for await (const bytes of response.body ?? []) {
      for (const data of split.push(bytes)) events.push(...reader.next(data));
    }
    for (const data of split.end()) events.push(...reader.next(data));
  }
  events.push(...reader.end());
  expect(events.length).toBeGreaterThan(protocol === 'ray' ? 1 : 3);
  expect(events.map(textIn).join('').length).toBeGreaterThan(100);
  expect(reader.tokens).toEqual(protocol === 'ray' ? undefined : expect.any(Number));
});

test.each([
  ['/v1/embeddings', 'openai', { model, input: ['a', 'b'] }],
  ['/v1/embeddings', 'ollama', { model, input: ['a', 'b'] }],
  ['/api/embed', 'ollama', { model, input: ['a', 'b'] }],
  ['/api/embed', 'openai', { model, input: ['a', 'b'] }],
  ['/api/embeddings', 'openai', { model, prompt: 'a' }],
] as const)('%s at %s', async (path, protocol, body) => {
  const { url } = await quickReplica({ embeddingDimensions: 8 });
  const how = exchange(path, body, protocol);
  const response = await asked(url, how);
  const whole = how.whole({ contentType: typeOf(response), body: await response.text() });
  const { data, embeddings, embedding } = JSON.parse(whole.body);
  expect(embedding ?? (embeddings ?? data)[0].embedding ?? embeddings[0]).toHaveLength(8);
  expect(whole.tokens).toBeGreaterThan(0);
});
