/** Faults that can be switched on while the replica runs, one at a time. */

import { SluiceError } from '../errors.ts';
import { isObject } from './protocol.ts';
import { randomFrom } from './text.ts';

/**
 * - `none`: healthy.
 * - `refuse`: stops listening, so that connects are refused, and ends idle connections; answers
 *   under way go on. Over HTTP nobody can take it back: give `for_ms`, or own the process.
 * - `unavailable`: 503 with Retry-After.  `error`: 500.
 * - `hang`: takes the request and never answers; it holds no place in the batch.
 * - `slow`: the answer takes `factor` times as long, and holds its place so long.
 * - `cut`: the connection is destroyed after `after_tokens` of the answer.
 * - `die`: the process ends, at once or after `after_tokens` of the answer.
 * - `stall`: silent after `after_tokens` of a stream, or from the start where nothing is streamed,
 *   with the connection open until the client leaves. Its tokens written, it has left the batch.
 * - `malformed`: after `after_tokens` a stream has a message that is no JSON and then ends, without
 *   the protocol's own end; what is not streamed is the first half of its body, with status 200.
 * - `endless`: the words are repeated at the normal pace, whatever limit the caller set, until the
 *   client leaves; what is not streamed is a JSON text that is never closed.
 * - `flood`: after `after_tokens` a stream has one message with a text of `bytes`, and goes on; what
 *   is not streamed has a text of `bytes`. An embedding has no text and is as ever.
 * - `stream_error`: after `after_tokens` a stream reports an error as its protocol does, and ends
 *   without the protocol's own end; what is not streamed is answered 500.
 * - `headers`: a good answer with odd headers: two cookies, 8 KiB in one, Latin-1, a parameter of
 *   the content type twice, and, where it is streamed, a trailer.
 */
export type FaultMode = (typeof faultModes)[number];

const faultModes = [
  'none',
  'refuse',
  'unavailable',
  'error',
  'hang',
  'slow',
  'cut',
  'die',
  'stall',
  'malformed',
  'endless',
  'flood',
  'stream_error',
  'headers',
] as const;

/** Spelled as in the JSON of `POST /sim/faults`. */
export interface Fault {
  readonly mode: FaultMode;
  /** Ends after so many requests were hit; absent: no limit. */
  readonly count?: number;
  /** Only prompts whose body, or query, holds this text are hit; absent: all. */
  readonly match?: string;
  /** Share of the requests that are hit, 0 to 1; absent: all. */
  readonly probability?: number;
  /** Seed of the choice that `probability` makes, an integer; absent: 1. */
  readonly seed?: number;
  /** Ends after so many milliseconds, whatever the simulator's speed; absent: no limit. */
  readonly for_ms?: number;
  /** `prompts` (absent) or `all`: model lists, version and /healthz too, never /sim. */
  readonly scope?: 'prompts' | 'all';
  /** `unavailable`: seconds in Retry-After; absent: 1. */
  readonly retry_after_s?: number;
  /** `slow`: at least 1; absent: 4. */
  readonly factor?: number;
  /**
   * Tokens of the answer that come first; of a shorter answer all. `cut`, `stall`, `malformed`,
   * `flood`, `stream_error` (absent: 1) and `die` (absent: on arrival).
   */
  readonly after_tokens?: number;
  /** `flood`: length of the text; absent: 10,000,000. */
  readonly bytes?: number;
}

type Field = Exclude<keyof Fault, 'mode'>;

const perRequest: readonly Field[] = ['count', 'match', 'probability', 'seed', 'for_ms'];

/** Which fields mean something in which mode. Anything else is a mistake, and said so. */
const fieldsOf: Record<FaultMode, readonly Field[]> = {
  none: [],
  refuse: ['for_ms'],
  unavailable: [...perRequest, 'scope', 'retry_after_s'],
  error: [...perRequest, 'scope'],
  hang: [...perRequest, 'scope'],
  slow: [...perRequest, 'factor'],
  cut: [...perRequest, 'after_tokens'],
  die: [...perRequest, 'after_tokens'],
  stall: [...perRequest, 'after_tokens'],
  malformed: [...perRequest, 'after_tokens'],
  endless: perRequest,
  flood: [...perRequest, 'after_tokens', 'bytes'],
  stream_error: [...perRequest, 'after_tokens'],
  headers: perRequest,
};

const checks: Record<Field, { expected: string; holds: (value: unknown) => boolean }> = {
  count: integer(1, 1e9),
  match: {
    expected: 'a text of 1 to 1000 characters',
    holds: (value) => typeof value === 'string' && value.length >= 1 && value.length <= 1_000,
  },
  probability: number(0, 1),
  seed: integer(0, 2 ** 32 - 1),
  for_ms: integer(1, 2 ** 31 - 1),
  scope: { expected: 'prompts or all', holds: (value) => value === 'prompts' || value === 'all' },
  retry_after_s: integer(0, 86_400),
  factor: number(1, 1e6),
  after_tokens: integer(0, 1e9),
  bytes: integer(1, 1e8),
};

/**
 * A fault as given, checked. Throws `invalid_request` that names everything that is wrong;
 * `canDie` says whether there is a process of our own to end.
 */
export function parseFault(input: unknown, canDie: boolean): Fault {
  if (!isObject(input)) throw wrong(['a fault is an object with a mode'], undefined);
  const mode = faultModes.find((name) => name === input.mode);
  if (!mode) throw wrong([`mode must be one of ${faultModes.join(', ')}`], 'mode');
  const problems = Object.keys(input)
    .filter((name) => name !== 'mode' && input[name] !== undefined)
    .map((name) => ({ name, reason: problemWith(mode, name, input[name]) }))
    .filter(({ reason }) => reason !== undefined);
  if (mode === 'die' && !canDie) {
    problems.push({ name: 'mode', reason: 'die: this simulator is not a process of its own' });
  }
  const reasons = problems.map(({ reason }) => `${reason}`);
  if (problems.length > 0) throw wrong(reasons, problems[0]?.name);
  return { ...input, mode };
}

/** Holds the fault of the moment and decides which requests it hits. */
export class FaultSwitch {
  #fault: Fault = { mode: 'none' };
  #left = Number.POSITIVE_INFINITY;
  #random: () => number = () => 0;
  #hits = 0;

  get current(): Fault {
    return this.#fault;
  }

  /** Requests hit since the fault was set. */
  get hits(): number {
    return this.#hits;
  }

  set(fault: Fault): void {
    this.#fault = fault;
    this.#left = fault.count ?? Number.POSITIVE_INFINITY;
    this.#random = randomFrom(fault.seed ?? 1);
    this.#hits = 0;
  }

  /** The fault that hits this request, if one does. To be asked once a request; `text` is the prompt's. */
  draw(kind: 'prompt' | 'probe', text = ''): Fault | undefined {
    const fault = this.#fault;
    if (fault.mode === 'none' || fault.mode === 'refuse' || this.#left === 0) return undefined;
    if (kind === 'probe' && fault.scope !== 'all') return undefined;
    if (fault.match !== undefined && !text.includes(fault.match)) return undefined;
    if (fault.probability !== undefined && this.#random() >= fault.probability) return undefined;
    this.#hits += 1;
    this.#left -= 1;
    if (this.#left === 0) this.#fault = { mode: 'none' };
    return fault;
  }
}

function problemWith(mode: FaultMode, name: string, value: unknown): string | undefined {
  const field = Object.keys(checks).find((known) => known === name) as Field | undefined;
  if (!field) return `${name} is unknown`;
  if (!fieldsOf[mode].includes(field)) return `${name} does not go with mode ${mode}`;
  return checks[field].holds(value) ? undefined : `${name} must be ${checks[field].expected}`;
}

function wrong(reasons: string[], param: string | undefined): SluiceError {
  return new SluiceError('invalid_request', reasons.join('; '), { param });
}

function integer(least: number, most: number) {
  return {
    expected: `an integer from ${least} to ${most}`,
    holds: (value: unknown) => Number.isInteger(value) && within(value, least, most),
  };
}

function number(least: number, most: number) {
  return {
    expected: `a number from ${least} to ${most}`,
    holds: (value: unknown) => within(value, least, most),
  };
}

function within(value: unknown, least: number, most: number): boolean {
  return typeof value === 'number' && value >= least && value <= most;
}
