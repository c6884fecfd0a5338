import { type Fields, isObject } from './json.ts';
import { messageIn } from './native.ts';
import type { Exchange, Protocol, Reply } from './types.ts';

const json = 'application/json';
export const plainText = 'text/plain; charset=utf-8';

/** How a client of each protocol is told that its prompt was refused. */
const shapes: Record<Protocol, (message: string) => Reply> = {
  openai: (message) => {
    const error = { message, type: 'invalid_request_error', param: null, code: null };
    return { contentType: json, body: JSON.stringify({ error }) };
  },
  ollama: (message) => ({ contentType: json, body: JSON.stringify({ error: message }) }),
  ray: (message) => ({ contentType: plainText, body: message }),
};

/** Tells a client in its own protocol what a replica of another one refused. */
export function refusalFor(front: Protocol): Exchange['refusal'] {
  return ({ status, body }) =>
    shapes[front](messageOf(body) ?? `the replica refused the prompt with status ${status}`);
}

function messageOf(body: string): string | undefined {
  let reply: unknown;
  try {
    reply = JSON.parse(body);
  } catch {
    return body.trim() || undefined;
  }
  if (typeof reply === 'string') return reply || undefined;
  if (!isObject(reply)) return undefined;
  return messageIn(reply) ?? listedIn(reply);
}

/** FastAPI lists what it finds wrong (https://fastapi.tiangolo.com/tutorial/handling-errors/). */
function listedIn({ detail }: Fields): string | undefined {
  if (!Array.isArray(detail)) return undefined;
  const found = detail.filter(isObject).map(({ loc, msg }) => {
    const where = Array.isArray(loc) ? `${loc.join('.')}: ` : '';
    return `${where}${String(msg)}`;
  });
  return found.join('; ') || undefined;
}
