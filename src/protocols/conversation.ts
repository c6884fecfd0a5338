import { untranslatable } from './fields.ts';
import type { Target } from './types.ts';

/** One message of a conversation, as text. */
export interface Turn {
  readonly role: string;
  readonly content: string;
  /** Its name in the client's request, for errors. */
  readonly at: string;
}

/**
 * A conversation as the one text that `/infer` takes. Without a template only a single message of a
 * user can be one. @throws SluiceError invalid_request
 */
export function textOf(turns: readonly Turn[], template: Target['template']): string {
  if (template === 'mistral-instruct') return mistralInstruct(turns);
  const [only] = turns;
  if (only?.role === 'user' && turns.length === 1) return only.content;
  const odd = turns.find(({ role }) => role !== 'user') ?? turns[1];
  throw untranslatable(
    odd?.at ?? 'messages',
    'ray',
    'its pool has no template, so it can be asked only one message of a user',
  );
}

/**
 * The form that Mistral's instruction models were trained with
 * (https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.2#instruction-format), without the `<s>`
 * at the start, which the tokenizer adds. It has no system role: that text comes first in the first
 * message of the user.
 */
function mistralInstruct(turns: readonly Turn[]): string {
  const start = turns.findIndex(({ role }) => !isSystem(role));
  const system = turns.slice(0, start === -1 ? turns.length : start);
  const talk = start === -1 ? [] : turns.slice(start);
  const texts = talk.map(({ role, content, at }, index) => {
    if (role !== (index % 2 === 0 ? 'user' : 'assistant')) {
      throw untranslatable(at, 'ray', 'user and assistant must alternate, from user to user');
    }
    if (role === 'assistant') return ` ${content}</s>`;
    const before = index === 0 ? system.map((turn) => `${turn.content}\n\n`).join('') : '';
    return asked(`${before}${content}`);
  });
  if (talk.length % 2 === 1) return texts.join('');
  throw untranslatable(
    turns.at(-1)?.at ?? 'messages',
    'ray',
    'the last message must be one of a user',
  );
}

function isSystem(role: string): boolean {
  return role === 'system' || role === 'developer';
}

const opening = '[INST]';
const closing = '[/INST]';

function asked(text: string): string {
  return `${opening} ${text} ${closing}`;
}

/** A text that is not in the template's form yet. */
export function wrapped(text: string, template: Target['template']): string {
  const isWrapped = text.startsWith(opening) || text.startsWith(`<s>${opening}`);
  return template === undefined || isWrapped ? text : asked(text);
}

/** What a single instruction says; a replica that is asked in messages wraps it itself. */
export function unwrapped(text: string): string {
  const trimmed = text.trim();
  const start = trimmed.startsWith('<s>') ? 3 : 0;
  const isOne =
    trimmed.startsWith(opening, start) &&
    trimmed.endsWith(closing) &&
    trimmed.indexOf(closing) === trimmed.length - closing.length &&
    trimmed.lastIndexOf(opening) === start;
  return isOne ? trimmed.slice(start + opening.length, -closing.length).trim() : text;
}
