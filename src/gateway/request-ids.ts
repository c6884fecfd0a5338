import { SluiceError } from '../errors.ts';

/** Which request an error belongs to. */

const idOfError = new WeakMap<object, string>();

/** The error as that of a request, see {@link requestIdOf}; one that is thrown for many is copied. */
export function withId(error: unknown, id: string): unknown {
  if (typeof error !== 'object' || error === null) return error;
  const own = error instanceof SluiceError ? error.copy() : error;
  idOfError.set(own, id);
  return own;
}

/** The request that an error belongs to, for the answer's header and the log. */
export function requestIdOf(error: unknown): string | undefined {
  return typeof error === 'object' && error !== null ? idOfError.get(error) : undefined;
}
