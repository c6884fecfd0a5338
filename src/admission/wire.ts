/** What goes to the steps and comes back, in the form that they keep. */
import { parseId } from './ids.ts';
import { labelsText, none, readLabels, word } from './text.ts';
import type { AdmissionSettings, PolicyRecord, Submission } from './types.ts';
import type { DomainView, EndedRecord, PoliciesView } from './views.ts';

/** What every step is told, see lua/lib/step.lua. */
export function settingsText(settings: AdmissionSettings): string {
  return JSON.stringify({
    begin_ms: settings.beginMs,
    offer_again_ms: settings.offerAgainMs,
    max_attempts: settings.maxAttempts,
    keep_ms: settings.keepMs,
    keep_job_ms: settings.keepJobMs,
  });
}

/** A submission as the step reads it, see lua/submit.lua. */
export function submitItem(submission: Submission): readonly (string | number)[] {
  const { id, version, pool, owner, rates = [], queueLimits } = submission;
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
  const isPlain = words.job === 0 && words.pool === none && words.rates === none;
  const more = isPlain ? '' : ` ${words.job} ${words.pool} ${words.rates}`;
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

export function readableEnd(ended: Stored<EndedRecord>): EndedRecord {
  const { control_point, labels, ...rest } = ended;
  return {
    ...rest,
    control_point: decodeURIComponent(control_point),
    labels: readLabels(labels),
  };
}

type Pairs = readonly (readonly [string, string])[] | Record<string, never>;

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
}

export function readableDomain(stored: StoredDomain): DomainView {
  // cjson writes an empty list as {}.
  const list = (pairs: Pairs) => (Array.isArray(pairs) ? pairs : []) as [string, string][];
  const numbers = (pairs: Pairs) =>
    Object.fromEntries(list(pairs).map(([name, value]) => [name, Number(value)]));
  return {
    // Buckets are told by their policies.
    limits: numbers(list(stored.limits).filter(([, value]) => !value.startsWith('bucket'))),
    lengths: new Map(
      list(stored.lengths).map(([name, value]) => [decodeURIComponent(name), Number(value)]),
    ),
    inFlight: numbers(stored.in_flight),
    nodes: stored.nodes,
    waiting: stored.waiting,
    live: stored.live,
    bodyBytes: stored.body_bytes,
    replicas: list(stored.replicas).map(([id, text]) => ({ ...JSON.parse(text), id })),
    members: list(stored.members).map(([id, text]) => ({ ...JSON.parse(text), id })),
  };
}

/** Policies as the step tells them: each is JSON. */
export interface StoredPolicies {
  readonly version: number;
  readonly rekeying?: number;
  readonly schema?: string;
  readonly policies: string[] | Record<string, never>;
}

export function readablePolicies(stored: StoredPolicies): PoliciesView {
  const list = Array.isArray(stored.policies) ? stored.policies : [];
  return {
    version: stored.version,
    rekeying: stored.rekeying,
    schema: stored.schema,
    policies: list.map((text) => JSON.parse(text) as PolicyRecord),
  };
}

/** A policy as it is kept, with its limits as the step reads them. */
export function policyText(policy: PolicyRecord): string {
  const limits = Object.entries(policy.limits).map(([key, limit]) => [
    key,
    typeof limit === 'number'
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
