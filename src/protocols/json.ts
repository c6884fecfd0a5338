import { SluiceError } from '../errors.ts';
import { MalformedReply } from './types.ts';

/** A JSON object whose fields nobody has looked at yet. */
export type Fields = Readonly<Record<string, unknown>>;

/** The object that a text of a client holds. @throws SluiceError invalid_request */
export function bodyOf(text: string, parse: (text: string) => unknown = JSON.parse): Fields {
  let body: unknown;
  try {
    body = parse(text);
  } catch (cause) {
    throw new SluiceError('invalid_request', 'the body is not valid JSON', {
      param: 'body',
      cause,
    });
  }
  if (isObject(body)) return body;
  throw new SluiceError('invalid_request', 'body must be a JSON object', { param: 'body' });
}

/** The object that a text of a replica holds. @throws MalformedReply, which does not quote it */
export function replyOf(text: string, parse: (text: string) => unknown = JSON.parse): Fields {
  let reply: unknown;
  try {
    reply = parse(text);
  } catch {
    throw new MalformedReply('the replica sent what is not valid JSON');
  }
  if (isObject(reply)) return reply;
  throw new MalformedReply('the replica sent JSON that is not an object');
}

export function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !isRaw(value);
}

/** A field that is an object, or nothing. */
export function objectIn(fields: Fields, name: string): Fields | undefined {
  const value = fields[name];
  return isObject(value) ? value : undefined;
}

/** A field that is a text, or nothing. */
export function textIn(fields: Fields | undefined, name: string): string | undefined {
  const value = fields?.[name];
  return typeof value === 'string' ? value : undefined;
}

/** A number of tokens, or nothing where it can be none. */
export function countIn(fields: Fields | undefined, name: string): number | undefined {
  const value = fields?.[name];
  return typeof value === 'number' && value >= 0 ? Math.round(value) : undefined;
}

/**
 * As JSON.parse, but numbers that JavaScript would write otherwise than they came (beyond 2^53,
 * `1.0`, `1e3`) become raw JSON (https://github.com/tc39/proposal-json-parse-with-source), which
 * JSON.stringify writes as it came.
 */
export function parseExactly(text: string): unknown {
  if (!mayHoldOddNumber.test(text)) return JSON.parse(text);
  return json.parse(text, (_, value, { source }) =>
    typeof value === 'number' && source !== undefined && String(value) !== source
      ? json.rawJSON(source)
      : value,
  );
}

/** A number, however {@link parseExactly} left it. */
export function numberOf(value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  return isRaw(value) ? Number(value.rawJSON) : undefined;
}

/**
 * Finds every number that JavaScript writes otherwise, and now and then something in a text:
 * 16 digits or more, a fraction that ends with 0, an exponent, a fraction below 1e-6, and -0.
 */
const mayHoldOddNumber = /(?:\d\.?){16}|\.\d*0(?!\d)|\d[eE][+-]?\d|0\.000000|-0(?!\.)/;

interface RawNumber {
  readonly rawJSON: string;
}

/** What the library of TypeScript does not know of yet. */
const json = JSON as unknown as {
  parse(
    text: string,
    revive: (key: string, value: unknown, context: { source?: string }) => unknown,
  ): unknown;
  rawJSON(text: string): RawNumber;
  isRawJSON(value: unknown): value is RawNumber;
};

function isRaw(value: unknown): value is RawNumber {
  return json.isRawJSON(value);
}
