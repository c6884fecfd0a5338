/**
 * A replica of OpenAI's protocol that does no work. What it says is known beforehand: at once as a
 * whole, or as a stream at a pace of its own, of which it remembers when it began.
 */

import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { setInterval } from 'node:timers/promises';
import { serve, sharedNow } from '../support/children.ts';
import { answerTokens } from '../support/prompts.ts';

interface Asked {
  readonly messages: readonly { readonly content: string }[];
  readonly max_tokens: number;
  readonly stream: boolean;
}

let everyMs = 0;
let begun: Record<string, number> = {};

serve({
  /** In a stream the first token comes after `tokenMs`, and each further one after as long. */
  async start({ tokenMs }: { tokenMs: number }) {
    everyMs = tokenMs;
    const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
      answer(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  },

  /** When it wrote the first token of each stream, by prompt, on the shared clock, ms; forgets them. */
  begun() {
    const told = begun;
    begun = {};
    return told;
  },
});

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { messages, max_tokens: count, stream } = JSON.parse(await text(request)) as Asked;
  const prompt = messages[0]?.content ?? '';
  const tokens = answerTokens(prompt, count);
  if (stream) {
    await say(response, prompt, tokens);
    return;
  }
  const message = { role: 'assistant', content: tokens.join('') };
  response.setHeader('content-type', 'application/json');
  const choices = [{ index: 0, message, finish_reason: 'stop' }];
  response.end(reply('chat.completion', choices, usageOf(count)));
}

async function say(
  response: ServerResponse,
  prompt: string,
  tokens: readonly string[],
): Promise<void> {
  response.setHeader('content-type', 'text/event-stream');
  response.flushHeaders();
  let said = 0;
  for await (const _ of setInterval(everyMs)) {
    if (response.destroyed) return;
    if (said === 0) begun[prompt] = sharedNow();
    response.write(event([{ index: 0, delta: { content: tokens[said] }, finish_reason: null }]));
    said += 1;
    if (said === tokens.length) break;
  }
  response.write(event([{ index: 0, delta: {}, finish_reason: 'stop' }]));
  // Sluice always asks for it.
  response.end(`${event([], usageOf(said))}data: [DONE]\n\n`);
}

function event(choices: readonly object[], usage?: object): string {
  return `data: ${reply('chat.completion.chunk', choices, usage)}\n\n`;
}

function reply(object: string, choices: readonly object[], usage?: object): string {
  return JSON.stringify({ id: 'chatcmpl-1', object, created: 0, model: 'mistral', choices, usage });
}

function usageOf(count: number): object {
  return { prompt_tokens: 1, completion_tokens: count, total_tokens: count + 1 };
}
