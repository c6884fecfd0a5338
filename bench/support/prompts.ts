/** What clients ask, and what the replica of `children/upstream.ts` says to it. */

import { type Dispatcher, request } from 'undici';

/** Who is asked. */
export interface Target {
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Prompt {
  readonly text: string;
  /** Tokens of the answer; the replica's own length when absent. */
  readonly tokens?: number;
  readonly stream?: boolean;
}

/** Users that the prompts are of. */
const users = 50;

/** Sends a prompt of one of the users. */
export function send(
  dispatcher: Dispatcher,
  { url, headers }: Target,
  number: number,
  { text, tokens, stream = false }: Prompt,
): Promise<Dispatcher.ResponseData> {
  return request(`${url}/v1/chat/completions`, {
    method: 'POST',
    dispatcher,
    headers: {
      'content-type': 'application/json',
      'sluice-labels': `user_id=u${number % users}`,
      ...headers,
    },
    body: JSON.stringify({
      model: 'mistral',
      messages: [{ role: 'user', content: text }],
      max_tokens: tokens,
      stream,
    }),
  });
}

/** Sends a prompt and reads its answer. @throws when that is no answer */
export async function ask(...sent: Parameters<typeof send>): Promise<string> {
  const { statusCode, body } = await send(...sent);
  const text = await body.text();
  if (statusCode !== 200) throw new Error(`a prompt was answered ${statusCode}: ${text}`);
  return text;
}

/**
 * The tokens of the answer to a prompt. No two are alike, of one answer or of two: a client can tell
 * whether it got all of them, once each, in their order, and nobody else's.
 */
export function answerTokens(prompt: string, tokens: number): string[] {
  return Array.from({ length: tokens }, (_, place) => `${prompt}:${place} `);
}
