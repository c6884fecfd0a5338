/** What goes to the steps and comes back, in the form that they keep. */
import { parseId } from './ids.ts';
import { labelsText, none, readLabels, word } from './text.ts';
import type {
  AdmissionSettings,
  PolicyRecord,
  ProbeFields,
  ReplicaRecord,
  Submission,
} from './types.ts';
import type { DeadLetter, DomainView, EndedRecord, PoliciesView } from './views.ts';

/** What every step is told, see lua/lib/step.lua. */
export function settingsText(settings: AdmissionSettings): string {
  return JSON.stringify({
    begin_ms: settings.beginMs,
    offer_again_ms: settings.offerAgainMs,
    max_attempts: settings.maxAttempts,
    keep_ms: settings.keepMs,
    keep_job_ms: settings.keepJobMs,
    keep_dead_ms: settings.keepDeadMs,
    dead_letters: settings.deadLetters,
    dead_letter_bytes: settings.deadLetterBytes,
  });
}

/** A submission as the step reads it, see lua/submit.lua. */
export function submitItem(submission: Submission): readonly (string | number)[] {
  const { id, version, pool, owner, rates = [], queueLimits, affinity } = submission;
  const timeMs = parseId(id)?.timeMs;
  if (timeMs === undefined) throw new Error(`not a request id: ${id}`);
  const words = {
    job: submission.job ? 1 : 0,
    pool: pool === undefined ? none : word(pool),
    owner: owner === undefined ? none : word(owner),
    rates: rates.map(({ limiter, tokens }) => `${limiter};${tokens}`).join(',') || none,
  };
  const { queue, cost, timeoutMs, maxInflightMs } = submission;
  const place = `${word(submission.controlPoint)} ${labelsText(submission.labels)}`;
  const near = affinity === undefined ? '' : ` ${affinity}`;
  const isPlain = words.job === 0 && words.pool === none && words.rates === none;
  const more = isPlain ? '' : ` ${words.job} ${words.pool} ${words.rates}${near}`;
  const text = `${queue} ${cost} ${timeoutMs} ${maxInflightMs} ${words.owner} ${place}${more}`;
  return [
    id,
    timeMs,
    version,
    queueLimits?.controlPoint ?? -1,
    queueLimits?.workload ?? -1,
    submission.refusing?.join(',') ?? '',
    text,
    queue.length,
    cost,
    timeoutMs,
    maxInflightMs,
    words.job,
    words.pool,
    words.owner,
    words.rates,
    affinity ?? none,
  ];
}

/** A record as the step tells it: its labels are text, and its words encoded. */
export type Stored<Told extends { labels: unknown }> = Omit<Told, 'labels'> & { labels?: string };

/** A live request with its words as they were. */
export function readableRequest<
  Told extends { control_point: string; labels: unknown; pool?: string; owner?: string },
>(stored: Stored<Told>): Told {
  const { control_point, labels, pool, owner } = stored as Told & { labels?: string };
  return {
    ...stored,
    control_point: decodeURIComponent(control_point),
    labels: readLabels(labels),
    ...(pool !== undefined && { pool: decodeURIComponent(pool) }),
    ...(owner !== undefined && { owner: decodeURIComponent(owner) }),
  } as unknown as Told;
}

export function readableLetter(letter: Stored<DeadLetter>): DeadLetter {
  const told = readableRequest<DeadLetter>(letter);
  // cjson writes an empty list as {}.
  return { ...told, story: Array.isArray(told.story) ? told.story : [] };
}

export function readableEnd(ended: Stored<EndedRecord>): EndedRecord {
  const { control_point, labels, ...rest } = ended;
  return {
    ...rest,
    control_point: decodeURIComponent(control_point),
    labels: readLabels(labels),
  };
}

/** A hash as a step tells it. */
export type Pairs = readonly (readonly [string, string])[] | Record<string, never>;

/** A domain as the step tells it: hashes are lists of pairs. */
export interface StoredDomain {
  readonly limits: Pairs;
  readonly in_flight: Pairs;
  readonly nodes: DomainView['nodes'];
  readonly waiting: number;
  readonly lengths: Pairs;
  readonly live: number;
  readonly body_bytes: number;
  readonly replicas: Pairs;
  readonly members: Pairs;
  readonly probes: Pairs;
  readonly paused_pools: Pairs;
  readonly probers: Pairs;
}

export function readableDomain(stored: StoredDomain): DomainView {
  const numbers = (pairs: Pairs) =>
    Object.fromEntries(list(pairs).map(([name, value]) => [name, Number(value)]));
  return {
    // Buckets are told by their policies.
    limits: numbers(
      list(stored.limits)
        .filter(([, limit]) => !limit.startsWith('bucket'))
        .map(([name, limit]) => [name, unitsIn(limit)]),
    ),
    lengths: new Map(
      list(stored.lengths).map(([name, value]) => [decodeURIComponent(name), Number(value)]),
    ),
    inFlight: numbers(stored.in_flight),
    nodes: stored.nodes,
    waiting: stored.waiting,
    live: stored.live,
    bodyBytes: stored.body_bytes,
    replicas: readableReplicas(stored.replicas),
    members: list(stored.members).map(([id, text]) => ({ ...JSON.parse(text), id })),
    probes: new Map(
      list(stored.probes).map(([id, text]) => [id, JSON.parse(text) as ProbeFields] as const),
    ),
    pausedPools: list(stored.paused_pools).map(([pool]) => pool),
    probers: Object.fromEntries(list(stored.probers)),
  };
}

export function readableReplicas(pairs: Pairs): ReplicaRecord[] {
  return list(pairs).map(([id, text]) => {
    const record = JSON.parse(text) as Omit<ReplicaRecord, 'state' | 'health'>;
    // A record of an older version has no state of its own.
    return { state: 'ready', health: 'up', ...record, id };
  });
}

/** cjson writes an empty list as {}. */
function list(pairs: Pairs): [string, string][] {
  return (Array.isArray(pairs) ? pairs : []) as [string, string][];
}

/** What a limit that is no bucket takes: `<units>`, or `auto <units> <pools>`. */
function unitsIn(limit: string): string {
  const [first = '', units = first] = limit.split(' ');
  return units;
}

/** Policies as the step tells them: each is JSON. */
export interface StoredPolicies {
  readonly version: number;
  readonly rekeying?: number;
  readonly schema?: string;
  readonly policies: string[] | Record<string, never>;
  readonly paused: string[] | Record<string, never>;
}

export function readablePolicies(stored: StoredPolicies): PoliciesView {
  const list = Array.isArray(stored.policies) ? stored.policies : [];
  return {
    version: stored.version,
    rekeying: stored.rekeying,
    schema: stored.schema,
    policies: list.map((text) => JSON.parse(text) as PolicyRecord),
    paused: Array.isArray(stored.paused) ? stored.paused.map(decodeURIComponent).toSorted() : [],
  };
}

/** A policy as it is kept, with its limits as the step reads them. */
export function policyText(policy: PolicyRecord): string {
  const limits = Object.entries(policy.limits).map(([key, limit]) => [
    key,
    typeof limit === 'number' || 'auto' in limit
      ? limit
      : {
          capacity: limit.capacity,
          fill_amount: limit.fillAmount,
          interval_ms: limit.intervalMs,
          continuous: limit.continuous,
          delay_initial_fill: limit.delayInitialFill,
        },
  ]);
  return JSON.stringify({ ...policy, limits: Object.fromEntries(limits) });
}
