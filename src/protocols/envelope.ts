import type { ClientPrompt } from './types.ts';

/** A prompt on its way through Redis: what a worker has to know of it in JSON, a line, then its body. */
export function encodePrompt({ body, path, model, stream }: ClientPrompt): string {
  return `${JSON.stringify({ path, model, stream })}\n${body}`;
}

/** Reads {@link encodePrompt}'s text. */
export function decodePrompt(text: string): ClientPrompt {
  const end = text.indexOf('\n');
  const head = JSON.parse(text.slice(0, end)) as Omit<ClientPrompt, 'body'>;
  return { ...head, body: text.slice(end + 1) };
}
