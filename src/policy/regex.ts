/**
 * Regular expressions of label matchers, in the syntax of Go's `regexp`, which Aperture matches with:
 * found anywhere in the value unless anchored. RE2's way takes a time linear in the value, whatever
 * the pattern; JavaScript's own takes for ever on some, and callers choose what it runs on.
 */
import { RE2JS, RE2JSException } from 're2js';

/** Whether the value holds a match. */
export type Regex = (value: string) => boolean;

/**
 * The expression, or what is wrong with it. A function and not RE2JS's object, which does not bear
 * being frozen as policies are: it keeps the states that it has met.
 */
export function compileRegex(pattern: string): Regex | { readonly reason: string } {
  let regex: RE2JS;
  try {
    regex = RE2JS.compile(pattern);
  } catch (error) {
    if (!(error instanceof RE2JSException)) throw error;
    // It quotes the pattern, which may be long.
    const flaw = error.message.replace(/^error parsing regexp: /, '').slice(0, 100);
    return { reason: `must be a regular expression in Go's syntax (RE2): ${flaw}` };
  }
  const size = regex.programSize();
  if (size > mostInstructions) {
    const reason = `is too large: repeats written out it has ${size} steps, and ${mostInstructions} are allowed`;
    return { reason };
  }
  return (value) => regex.test(value);
}

/** A match takes at most so many steps for each character of the value. */
const mostInstructions = 500;
