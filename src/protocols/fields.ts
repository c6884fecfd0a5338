import { SluiceError } from '../errors.ts';
import { type Fields, isObject } from './json.ts';
import type { Protocol } from './types.ts';

/** Which fields a translation takes. Whatever else says something is refused by its name. */
export interface FieldRule {
  /** Read by the translation, or of no consequence for the answer. */
  readonly known: ReadonlySet<string>;
  /** The value of a field that asks for nothing: what the protocol assumes without the field. */
  readonly idle?: ReadonlyMap<string, unknown>;
}

/**
 * A field that would be lost changes the answer without a word, so it is refused. Null and an empty
 * list ask for nothing. @throws SluiceError invalid_request
 */
export function refuseOthers(
  fields: Fields,
  { known, idle }: FieldRule,
  back: Protocol,
  within = '',
): void {
  for (const [name, value] of Object.entries(fields)) {
    if (known.has(name) || isNothing(value) || idle?.get(name) === value) continue;
    throw untranslatable(`${within}${name}`, back);
  }
}

export function isNothing(value: unknown): boolean {
  return value === undefined || value === null || (Array.isArray(value) && value.length === 0);
}

/** A field that asks for something which replicas of the protocol have no words for. */
export function untranslatable(param: string, back: Protocol, why?: string): SluiceError {
  const message = `${param} cannot be translated for a replica that speaks ${back}`;
  return new SluiceError('invalid_request', why ? `${message}: ${why}` : message, { param });
}

/** A field that is wrong in the client's own protocol. */
export function invalid(param: string, right: string): SluiceError {
  return new SluiceError('invalid_request', `${param} ${right}`, { param });
}

/** A text, or '' where the field is missing. @throws SluiceError */
export function optionalText(fields: Fields, name: string, within = ''): string {
  const value = fields[name] ?? '';
  if (typeof value !== 'string') throw invalid(`${within}${name}`, 'must be a text');
  return value;
}

/** A text that is not empty. @throws SluiceError */
export function requiredText(fields: Fields, name: string): string {
  const text = optionalText(fields, name);
  if (text === '') throw invalid(name, 'must be a text that is not empty');
  return text;
}

/** The messages of a conversation, with their names for errors. @throws SluiceError */
export function messagesOf(fields: Fields): { readonly at: string; readonly message: Fields }[] {
  const { messages } = fields;
  if (!Array.isArray(messages) || messages.length === 0) {
    throw invalid('messages', 'must be a list with at least one message');
  }
  return messages.map((message: unknown, index) => {
    const at = `messages[${index}]`;
    if (!isObject(message)) throw invalid(at, 'must be an object');
    return { at, message };
  });
}
