import type { Admission, LiveRequest } from '../admission/index.ts';
import { parseQueueKey } from '../policy/index.ts';
import type { Key } from './caller.ts';
import { keyOf } from './rekeyer.ts';

/** Requests of one step, and looked at for one answer: what is left out is said. */
const pageItems = 128;
const mostSeen = 20_000;
/** Requests of one answer. */
const mostShown = 1_000;

export interface LiveRequests {
  /** Those that hold slots first, then those that wait; of each the oldest first. */
  readonly requests: readonly object[];
  /** Whether there may be more. */
  readonly truncated: boolean;
}

/** Who runs and who waits: those of the key, or all for an admin; only at one control point, if given. */
export async function readLiveRequests(
  admission: Admission,
  key: Pick<Key, 'keyId' | 'isAdmin'>,
  controlPoint: string | undefined,
): Promise<LiveRequests> {
  const isMeant = ({ labels, control_point }: LiveRequest) =>
    (key.isAdmin || keyOf(labels) === key.keyId) &&
    (controlPoint === undefined || control_point === controlPoint);
  // One that moves from hash to hash meanwhile is met twice, or not at all.
  const found = new Map<string, LiveRequest>();
  let seen = 0;
  for (const hash of ['held', 'requests'] as const) {
    let cursor = '0';
    do {
      const page = await admission.inspectPage(hash, cursor, pageItems);
      cursor = page.cursor;
      seen += page.requests.length;
      for (const request of page.requests.filter(isMeant)) found.set(request.id, request);
    } while (cursor !== '0' && seen < mostSeen && found.size <= mostShown);
  }
  const rank = ({ state }: LiveRequest) => (state === 'waiting' ? 1 : 0);
  const inOrder = [...found.values()].toSorted(
    (a, b) => rank(a) - rank(b) || a.created_at - b.created_at,
  );
  return {
    requests: inOrder.slice(0, mostShown).map(requestRow),
    truncated: seen >= mostSeen || inOrder.length > mostShown,
  };
}

function requestRow(request: LiveRequest): object {
  const { id, kind, state, control_point, queue, cost, created_at, admitted_at, end_by } = request;
  const { policy, workload, priority, fairnessKey } = parseQueueKey(queue) ?? {};
  return {
    ...{ id, kind, state, control_point, policy, workload, priority },
    ...{ fairness_key: fairnessKey, tokens: cost, created_at },
    ...(admitted_at !== undefined && { admitted_at, ends_by: end_by }),
  };
}
