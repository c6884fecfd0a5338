/** The numbers of the config file: sizes, counts and durations, each with its default and its range. */
import Type from 'typebox';
import { duration, isMapping, join, type Problem, parseDuration } from '../document.ts';
import type { Limits, Timeouts } from './types.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const mebibyte = 1024 * 1024;

/** A number with its default and its range, units as in the Config. */
interface Setting {
  /** Its name in the file. */
  readonly name: string;
  readonly default: number;
  readonly least: number;
  readonly most: number;
}

/** Durations; in the file `name: 60s` or `name_ms: 60000`. */
const timeoutSettings: Readonly<Record<keyof Timeouts, Setting>> = {
  queueMs: { name: 'queue', default: 120_000, least: 1, most: day },
  maxTimeoutMs: { name: 'max_timeout', default: hour, least: 1000, most: 7 * day },
  beginMs: { name: 'begin', default: 5000, least: 100, most: hour },
  heartbeatMs: { name: 'heartbeat', default: 10_000, least: 100, most: hour },
  memberMs: { name: 'member', default: 10_000, least: 100, most: hour },
  sweepMs: { name: 'sweep', default: 1000, least: 10, most: minute },
  keepJobMs: { name: 'keep_job', default: hour, least: 1000, most: 30 * day },
  keepMs: { name: 'keep', default: minute, least: 1000, most: 30 * day },
  keepDeadMs: { name: 'keep_dead', default: 7 * day, least: 1000, most: 30 * day },
  abortMarginMs: { name: 'abort_margin', default: 1000, least: 0, most: minute },
  maxInflightMs: { name: 'max_inflight', default: minute, least: 100, most: 7 * day },
  firstTokenMs: { name: 'first_token', default: minute, least: 10, most: day },
  streamIdleMs: { name: 'stream_idle', default: minute / 2, least: 10, most: day },
  flushMs: { name: 'flush', default: 100, least: 1, most: minute },
  keepAliveMs: { name: 'keep_alive', default: 5000, least: 10, most: hour },
  stopMs: { name: 'stop', default: 10_000, least: 0, most: hour },
  slowReaderMs: { name: 'slow_reader', default: minute / 2, least: 100, most: hour },
  replicaDownMs: { name: 'replica_down', default: 5000, least: 10, most: hour },
  drainMs: { name: 'drain', default: minute / 2, least: 0, most: day },
};

/** Sizes in bytes where the name says so, else counts. */
const limitSettings: Readonly<Record<keyof Limits, Setting>> = {
  bodyBytes: { name: 'body_bytes', default: mebibyte, least: 1024, most: 64 * mebibyte },
  queuedBytes: {
    name: 'queued_bytes',
    default: 256 * mebibyte,
    least: mebibyte,
    most: 1024 * 1024 * mebibyte,
  },
  waiting: { name: 'waiting', default: 100_000, least: 1, most: 10_000_000 },
  held: { name: 'held', default: 100_000, least: 1, most: 10_000_000 },
  labelBytes: { name: 'label_bytes', default: 1024, least: 16, most: 8192 },
  labels: { name: 'labels', default: 64, least: 1, most: 256 },
  labelsBytes: { name: 'labels_bytes', default: 16_384, least: 64, most: 1024 * 1024 },
  answerBytes: {
    name: 'answer_bytes',
    default: 16 * mebibyte,
    least: 1024,
    most: 256 * mebibyte,
  },
  cacheBytes: {
    name: 'cache_bytes',
    default: 64 * mebibyte,
    least: 1024,
    most: 1024 * 1024 * mebibyte,
  },
  tokens: { name: 'tokens', default: 10_000_000, least: 1, most: 10_000_000 },
  deadLetters: { name: 'dead_letters', default: 1000, least: 0, most: 1_000_000 },
  deadLetterBytes: {
    name: 'dead_letter_bytes',
    default: 64 * mebibyte,
    least: 1024,
    most: 1024 * 1024 * mebibyte,
  },
};

export const limitsSchema = Type.Object(
  Object.fromEntries(
    Object.values(limitSettings).map((setting) => [setting.name, wholeNumber(setting)]),
  ),
);

export const timeoutsSchema = Type.Object(
  Object.fromEntries([
    ...Object.values(timeoutSettings).map(
      ({ name, least, most }) => [name, Type.Optional(duration(least, most))] as const,
    ),
    ...Object.values(timeoutSettings).map(
      (setting) => [`${setting.name}_ms`, wholeNumber(setting)] as const,
    ),
  ]),
  { judge: judgeTimeouts },
);

/** What the schema has let pass, and the defaults. */
export function readLimits(given: Readonly<Record<string, unknown>>): Limits {
  const read = (key: keyof Limits) => {
    const setting = limitSettings[key];
    const written = given[setting.name];
    return typeof written === 'number' ? written : setting.default;
  };
  return {
    bodyBytes: read('bodyBytes'),
    queuedBytes: read('queuedBytes'),
    waiting: read('waiting'),
    held: read('held'),
    labelBytes: read('labelBytes'),
    labels: read('labels'),
    labelsBytes: read('labelsBytes'),
    answerBytes: read('answerBytes'),
    cacheBytes: read('cacheBytes'),
    tokens: read('tokens'),
    deadLetters: read('deadLetters'),
    deadLetterBytes: read('deadLetterBytes'),
  };
}

/** What the schema has let pass, and the defaults. */
export function readTimeouts(
  given: Readonly<Record<string, unknown>>,
  problems: Problem[],
): Timeouts {
  const read = (key: keyof Timeouts) => {
    const { name, default: fallback } = timeoutSettings[key];
    const [written, ms] = [given[name], given[`${name}_ms`]];
    if (typeof ms === 'number') return ms;
    return typeof written === 'string' ? (parseDuration(written) ?? fallback) : fallback;
  };
  const timeouts: Timeouts = {
    queueMs: read('queueMs'),
    maxTimeoutMs: read('maxTimeoutMs'),
    beginMs: read('beginMs'),
    heartbeatMs: read('heartbeatMs'),
    memberMs: read('memberMs'),
    sweepMs: read('sweepMs'),
    keepJobMs: read('keepJobMs'),
    keepMs: read('keepMs'),
    keepDeadMs: read('keepDeadMs'),
    abortMarginMs: read('abortMarginMs'),
    maxInflightMs: read('maxInflightMs'),
    firstTokenMs: read('firstTokenMs'),
    streamIdleMs: read('streamIdleMs'),
    flushMs: read('flushMs'),
    keepAliveMs: read('keepAliveMs'),
    slowReaderMs: read('slowReaderMs'),
    stopMs: read('stopMs'),
    replicaDownMs: read('replicaDownMs'),
    drainMs: read('drainMs'),
  };
  if (timeouts.abortMarginMs >= timeouts.maxInflightMs) {
    const reason = 'must be shorter than max_inflight, or every prompt is aborted as it begins';
    problems.push({ path: 'timeouts.abort_margin', reason });
  }
  return timeouts;
}

function wholeNumber({ least, most }: Setting) {
  return Type.Optional(Type.Integer({ minimum: least, maximum: most }));
}

/** A duration is given as a text or in milliseconds, not both. */
function judgeTimeouts(timeouts: unknown, path: string, problems: Problem[]): void {
  if (!isMapping(timeouts)) return;
  for (const name of Object.keys(timeouts)) {
    if (!Object.hasOwn(timeouts, `${name}_ms`)) continue;
    const reason = `is given twice, as \`${name}\` and \`${name}_ms\`; keep one`;
    problems.push({ path: join(path, `${name}_ms`), reason });
  }
}
