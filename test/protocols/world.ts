/** What the tests of the translations share: prompts in a few words, and replies read in one go. */

import { expect } from 'vitest';
import { SluiceError } from '../../src/errors.ts';
import {
  type ClientPrompt,
  type Exchange,
  exchangeFor,
  type Protocol,
  type Target,
} from '../../src/protocols/index.ts';

export const model = 'mistral';
export const chatPath = '/v1/chat/completions';
export const hello = [{ role: 'user', content: 'Hello' }];

/** The exchange for a body, which is text where its spelling matters. */
export function exchange(
  path: string,
  body: object | string,
  target: Target | Protocol,
  stream = false,
): Exchange {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const prompt: ClientPrompt = { path, body: text, model, stream };
  return exchangeFor(prompt, typeof target === 'string' ? { protocol: target } : target);
}

/** What the replica is sent, parsed. */
export function sent(asked: Exchange): Record<string, unknown> {
  return JSON.parse(asked.request.body ?? 'null') as Record<string, unknown>;
}

/** The text in the query of a replica that takes only that. */
export function textSent({ request }: Exchange): string | null {
  return new URL(request.path, 'http://replica').searchParams.get('text');
}

export const json = (body: unknown) => ({
  contentType: 'application/json',
  body: JSON.stringify(body),
});
export const plain = (body: string) => ({ contentType: 'text/plain; charset=utf-8', body });

/** All that a client gets of a stream, parsed; objects are events of the replica. */
export function streamed(asked: Exchange, events: readonly (object | string)[]) {
  const reader = asked.reader();
  const texts = events.flatMap((event) =>
    reader.next(typeof event === 'string' ? event : JSON.stringify(event)),
  );
  texts.push(...reader.end());
  const said = texts.map((text) => JSON.parse(text) as Record<string, unknown>);
  return { said, texts, tokens: reader.tokens };
}

/** Checks that a prompt is refused by the name of a field. */
export function expectRefused(ask: () => unknown, param: string, message = /./): void {
  let refusal: unknown;
  try {
    ask();
  } catch (error) {
    refusal = error;
  }
  expect(refusal, param).toBeInstanceOf(SluiceError);
  expect(refusal, param).toMatchObject({ code: 'invalid_request', param });
  expect(String(refusal)).toMatch(message);
}
