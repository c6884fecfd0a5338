/**
 * What a caller says about one request, read strictly: labels, baggage, priority, tokens. In
 * Aperture a NaN or negative number passed as a label jams the key; here it is refused, with the
 * name of the label or header that carried it.
 */
import { isPrintable, shown } from '../document.ts';
import { SluiceError } from '../errors.ts';
import { priorityRange, tokensRange } from './parts.ts';

/** How much a request may bring along; `config.limits` has this shape. */
export interface LabelLimits {
  /** Bytes of a value in UTF-8. */
  readonly labelBytes: number;
  /** Labels on a request. */
  readonly labels: number;
  /** Bytes of all of them together, keys and values. */
  readonly labelsBytes: number;
}

const labelKeyLength = 128;

const baggageKey = /^[!#$%&'*+\-.^_`|~\w]+$/;
const baggageValue = /^[!#-+\--:<-[\]-~]*$/;

/** Bytes of a baggage header, as W3C has everyone support at least. */
const baggageBytes = 8192;

/**
 * The labels of a request as a new frozen record, or an `invalid_request` that names the label.
 * Refused are values that are no text or too long, too many labels, empty or long keys, control
 * characters, and `__proto__` as a key, so that copying labels is safe everywhere.
 */
export function validateLabels(
  given: unknown,
  limits: LabelLimits = { labelBytes: 1024, labels: 64, labelsBytes: 16_384 },
): Readonly<Record<string, string>> {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw invalid('labels', `labels must be a mapping of texts, not ${shown(given)}`);
  }
  const entries = Object.entries(given);
  if (entries.length > limits.labels) {
    throw invalid('labels', `at most ${limits.labels} labels are allowed, not ${entries.length}`);
  }
  const labels = entries.map(([key, value]): [string, string] => {
    const param = key.length <= labelKeyLength && isPrintable(key) ? `labels.${key}` : 'labels';
    if (key === '' || key.length > labelKeyLength || !isPrintable(key) || key === '__proto__') {
      const right = `a label's key has 1 to ${labelKeyLength} characters without control characters`;
      throw invalid(param, `${right}, not ${shown(key)}`);
    }
    if (typeof value !== 'string') {
      throw invalid(param, `label ${shown(key)} must be a text, not ${shown(value)}`);
    }
    if (Buffer.byteLength(value) > limits.labelBytes) {
      throw invalid(param, `label ${shown(key)} is longer than ${limits.labelBytes} bytes`);
    }
    if (!isPrintable(value)) {
      throw invalid(param, `label ${shown(key)} holds control characters or invalid Unicode`);
    }
    return [key, value];
  });
  const bytes = Buffer.byteLength(labels.flat().join(''));
  if (bytes > limits.labelsBytes) {
    const message = `labels have at most ${limits.labelsBytes} bytes together, not ${bytes}`;
    throw invalid('labels', message);
  }
  return Object.freeze(Object.fromEntries(labels));
}

/**
 * The labels of a `Sluice-Labels` header in W3C baggage syntax (https://www.w3.org/TR/baggage/):
 * `user_id=u1,workload=paid%20tier;property`. Values are percent-decoded, properties ignored,
 * empty members skipped (RFC 9110, 5.6.1). Malformed members, a key given twice, and what
 * {@link validateLabels} refuses are an `invalid_request`.
 */
export function parseBaggage(
  header: string,
  limits?: LabelLimits,
): Readonly<Record<string, string>> {
  const param = 'Sluice-Labels';
  if (Buffer.byteLength(header) > baggageBytes) {
    throw invalid(param, `${param} is longer than ${baggageBytes} bytes`);
  }
  const labels = new Map<string, string>();
  for (const member of header.split(',')) {
    if (member.trim() === '') continue;
    const [pair = ''] = member.split(';');
    const [key = '', encoded] = splitOnce(pair, '=');
    // Trimmed before it is matched: matching spaces on both sides takes a time that grows with
    // the square of their number, and a caller may send thousands.
    if (encoded === undefined || !baggageKey.test(key) || !baggageValue.test(encoded)) {
      const right = 'must be key=value pairs separated by commas, with values percent-encoded';
      throw invalid(param, `${param} ${right}; ${shown(pair.trim())} is not one`);
    }
    if (labels.has(key)) throw invalid(param, `${param} names ${shown(key)} twice`);
    labels.set(key, decodePercent(encoded, key));
  }
  return validateLabels(Object.fromEntries(labels), limits);
}

/**
 * A priority as a header or label gives it: a plain decimal from 0.1 to 1000, else an
 * `invalid_request` about `param`.
 */
export function parsePriority(given: string, param: string): number {
  const value = given.length <= 32 && /^\d+(?:\.\d+)?$/.test(given) ? Number(given) : Number.NaN;
  return checkPriority(value, param, given);
}

/** The same for a priority that is already a number. */
export function checkPriority(value: number, param: string, given: unknown = value): number {
  const { least, most } = priorityRange;
  if (value >= least && value <= most) return value;
  throw invalid(param, `${param} must be a number from ${least} to ${most}, not ${shown(given)}`);
}

/** Tokens as a label gives them: a whole number from 0 to 1e7, where 0 counts as 1. */
export function parseTokens(given: string, param: string): number {
  return Math.max(tokensRange.least, parseCharge(given, param));
}

/** The same for tokens that are already a number. */
export function checkTokens(value: number, param: string): number {
  return Math.max(tokensRange.least, checkCharge(value, param, value));
}

/** Tokens as a label gives them to a rate limiter: a whole number from 0, which is free, to 1e7. */
export function parseCharge(given: string, param: string): number {
  const value = given.length <= 32 && /^\d+$/.test(given) ? Number(given) : Number.NaN;
  return checkCharge(value, param, given);
}

function checkCharge(value: number, param: string, given: unknown): number {
  const { most } = tokensRange;
  if (Number.isInteger(value) && value >= 0 && value <= most) return value;
  throw invalid(param, `${param} must be a whole number from 0 to ${most}, not ${shown(given)}`);
}

/**
 * The cost of a prompt before it has run, in tokens: a quarter of its characters (the usual rule of
 * thumb for English text) and what the answer may have, 256 when the caller sets no maximum. A
 * stated estimate, not a count; the actual tokens are settled at the end. A `maxTokens` that is not
 * a whole number from 0 to 1e7 is an `invalid_request`.
 */
export function estimateTokens(prompt: {
  readonly promptChars: number;
  readonly maxTokens?: number | undefined;
}): number {
  const { maxTokens = 256 } = prompt;
  const { least, most } = tokensRange;
  if (!Number.isInteger(maxTokens) || maxTokens < 0 || maxTokens > most) {
    const right = `must be a whole number from 0 to ${most}`;
    throw invalid('max_tokens', `max_tokens ${right}, not ${shown(maxTokens)}`);
  }
  return Math.min(most, Math.max(least, Math.ceil(prompt.promptChars / 4) + maxTokens));
}

/** What stands before and after the first separator, trimmed; one part where there is none. */
function splitOnce(text: string, separator: string): string[] {
  const at = text.indexOf(separator);
  return at < 0 ? [text.trim()] : [text.slice(0, at).trim(), text.slice(at + 1).trim()];
}

function decodePercent(encoded: string, key: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch (cause) {
    const reason = `the value of ${shown(key)} in Sluice-Labels is not percent-encoded UTF-8`;
    throw new SluiceError('invalid_request', reason, { param: 'Sluice-Labels', cause });
  }
}

function invalid(param: string, message: string): SluiceError {
  return new SluiceError('invalid_request', message, { param });
}
