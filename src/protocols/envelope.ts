import type { ClientPrompt } from './types.ts';

/** A prompt on its way through Redis: what a worker has to know of it in JSON, a line, then its body. */
export function encodePrompt({ body, ...head }: ClientPrompt): string {
  const { path, model, stream, replay } = head;
  return `${JSON.stringify({ path, model, stream, replay })}\n${body}`;
}

/** Reads {@link encodePrompt}'s text. */
export function decodePrompt(text: string): ClientPrompt {
  const end = text.indexOf('\n');
  const head = JSON.parse(text.slice(0, end)) as Omit<ClientPrompt, 'body'>;
  return { ...head, body: text.slice(end + 1) };
}
