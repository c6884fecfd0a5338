import { InvalidArgumentError } from 'commander';

/** Readers of options; what they throw is told with the option's name. */

export function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('not a number');
  return value;
}
