import { InvalidArgumentError } from 'commander';
import { parseDuration } from '../duration.ts';

/** Readers of options; what they throw is told with the option's name. */

export function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('not a number');
  return value;
}

/** `120s`, `1m30s`, `500ms`, or a number of milliseconds. */
export function milliseconds(text: string): number {
  const value = /^\d{1,12}$/.test(text) ? Number(text) : parseDuration(text);
  if (value !== undefined) return value;
  throw new InvalidArgumentError('not a duration such as 120s, 1m30s or 500ms');
}

/** `key=value`, again and again. */
export function label(
  text: string,
  before: Readonly<Record<string, string>> = {},
): Readonly<Record<string, string>> {
  const [key = '', ...values] = text.split('=');
  if (key === '' || values.length === 0) {
    throw new InvalidArgumentError('not a label such as user_id=u1');
  }
  // Not by assignment: a label may be named __proto__.
  return Object.fromEntries([...Object.entries(before), [key, values.join('=')]]);
}
