import type { SubmitResult } from '../admission/index.ts';
import { type RequestDecided, requestDecided } from '../diagnostics.ts';
import { parseLimiter, type Schedule } from '../policy/index.ts';
import type { Piece } from '../stream/index.ts';

type Rejected = Extract<SubmitResult, { status: 'rejected' }>;

type Alerting = Schedule['alerting'][number];

/**
 * Says that a request was accepted or refused, to the policies that apply to it and have an alerter.
 * Call it once for each request: when it is refused at once (`rejected` says how), is admitted, or has
 * waited for too long. It costs nothing where no policy has an alerter.
 */
export function publishDecision(
  { alerting }: Pick<Schedule, 'alerting'>,
  accepted: boolean,
  rejected?: Rejected,
): void {
  if (alerting.length === 0 || !requestDecided.hasSubscribers) return;
  for (const one of alerting) {
    if (!accepted && !hasRefused(one, rejected)) continue;
    requestDecided.publish({ policy: one.policy, accepted } satisfies RequestDecided);
  }
}

/** What a request that waited is told, as a decision; undefined while there is none. */
export function decisionOf(piece: Piece): boolean | undefined {
  if (piece.kind === 'events') return true;
  if (piece.kind === 'state') return piece.state === 'waiting' ? undefined : true;
  // Whoever was cancelled before it was admitted has decided that itself.
  if (piece.end.state === 'cancelled') return undefined;
  return piece.end.state !== 'rejected';
}

/**
 * A limiter that refuses does so for its own policy: the others had no say. Waiting in vain, or for a
 * place in the queue, is the doing of those that let wait. What is wrong with the request itself is
 * no decision.
 */
function hasRefused({ policy, letsWait }: Alerting, rejected: Rejected | undefined): boolean {
  switch (rejected?.reason) {
    case undefined:
    case 'queue_full':
    case 'queue_timeout':
      return letsWait;
    case 'rate_limited': {
      const name = parseLimiter(rejected.limiter ?? '');
      return 'policy' in name && name.policy === policy;
    }
    default:
      return false;
  }
}
