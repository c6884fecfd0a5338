import type { SubmitResult } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { type ErrorCode, errorTable, SluiceError } from '../errors.ts';
import { parseLimiter, type Schedule } from '../policy/index.ts';
import type { End } from '../stream/index.ts';

/**
 * What a client is told when its request was not taken in, or came to no answer. The messages are logged: they name limits
 * by their policies and label keys, never by a label's value, which says who the client is.
 */

/** Cause of the error for an id that is too old to be new. */
export const staleId = Symbol('stale id');

type Rejected = Extract<SubmitResult, { status: 'rejected' }>;

interface Submitted {
  readonly config: Config;
  readonly controlPoint: string;
  readonly plan: Pick<
    Schedule,
    'queueLimits' | 'refusing' | 'rateDeniedStatus' | 'limitDeniedStatus'
  >;
}

/** The error for a submit that was rejected, with the time after which to try again. */
export function rejection(result: Rejected, submitted: Submitted): SluiceError {
  const retryAfterMs = result.retry_after_ms ?? 1_000;
  const { limiter = '' } = result;
  switch (result.reason) {
    case 'queue_full':
      return new SluiceError('queue_full', fullMessage(limiter, submitted), { retryAfterMs });
    case 'queue_timeout':
      return new SluiceError('queue_timeout', 'there is no time left to wait', { retryAfterMs });
    case 'stale_id':
      return new SluiceError('unavailable', 'the request took too long to reach the queue', {
        retryAfterMs,
        cause: staleId,
      });
    case 'rate_limited': {
      const { plan } = submitted;
      const isRate = !plan.refusing.includes(limiter);
      const what = isRate ? 'rate limit' : 'concurrency limit';
      return new SluiceError('rate_limited', `the ${what} of ${ownerOf(limiter)} is used up`, {
        retryAfterMs,
        httpStatus: isRate ? plan.rateDeniedStatus : plan.limitDeniedStatus,
      });
    }
    case 'over_capacity': {
      const message = `the request costs more tokens than the bucket of ${ownerOf(limiter)} ever holds`;
      return new SluiceError('invalid_request', message, { param: 'tokens' });
    }
  }
}

function fullMessage(full: string, { config, controlPoint, plan }: Submitted): string {
  const { limits } = config;
  const { queueLimits } = plan;
  switch (full) {
    case 'waiting':
      return `${limits.waiting} requests wait already, as many as may (limits.waiting)`;
    case 'held':
      return `${limits.held} requests run already, as many as may (limits.held)`;
    case 'queued_bytes':
      return `the bodies of those who wait leave no room in ${limits.queuedBytes} bytes (limits.queued_bytes)`;
    case 'control_point':
      return `at ${controlPoint} ${asManyAsMay(queueLimits.controlPoint)}`;
    case 'workload':
      return `in its workload ${asManyAsMay(queueLimits.workload)}`;
    default:
      return 'too much waits already';
  }
}

function asManyAsMay(most: number | undefined): string {
  if (most === 0) return 'nobody may wait (max_queue_length 0), and it cannot run at once';
  return `${most} requests wait already, as many as may (max_queue_length)`;
}

/** `policy api`, or `policy api for its user_id`. */
function ownerOf(limiter: string): string {
  const name = parseLimiter(limiter);
  if (name.kind === 'pool') return `pool ${name.pool}`;
  if (name.kind === 'pause') return `control point ${name.controlPoint}`;
  return `policy ${name.policy}${name.kind === 'label' ? ` for its ${name.label}` : ''}`;
}

/** The error a client sees for a request that ended otherwise than done. */
export function endError(
  end: Pick<End, 'state' | 'code' | 'message'>,
  deniedStatus?: number,
): SluiceError {
  if (end.state === 'done') return new SluiceError('internal', 'the answer is no longer kept');
  const code =
    end.code !== undefined && end.code in errorTable ? (end.code as ErrorCode) : 'internal';
  return new SluiceError(code, end.message ?? `the request ended as ${end.state}`, {
    retryAfterMs: code === 'queue_timeout' || code === 'unavailable' ? 1_000 : undefined,
    httpStatus: code === 'queue_timeout' ? deniedStatus : undefined,
  });
}
