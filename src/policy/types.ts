/**
 * The words of the policy part. A policy is one of Aperture's values files, read once; a request is
 * scheduled with it by pure functions, so every gateway gets the same answer.
 */
import type { LabelMatcher } from './match.ts';

/** Where a policy applies, and to which of the requests there. */
export interface Selector {
  readonly controlPoint: string;
  /** Only requests whose labels match; every request when absent. */
  readonly matcher?: LabelMatcher;
}

/** One kind of requests under a policy, with its share and its patience. */
export interface Workload {
  readonly name: string;
  readonly matcher: LabelMatcher;
  readonly parameters: WorkloadParameters;
}

/** How a workload's requests are treated when their labels say nothing else. */
export interface WorkloadParameters {
  /** Weight in the fair order, 0.1 to 1000. */
  readonly priority: number;
  /** Cost of a request in tokens, 1 to 1e7; the estimate of the prompt when absent. */
  readonly tokens?: number;
  /** How long a request may wait, in milliseconds; no limit of the policy's own when absent. */
  readonly queueTimeoutMs?: number;
  /** How many requests may wait in the workload, 0 to 1e6. Sluice's own; no limit when absent. */
  readonly maxQueueLength?: number;
}

/** A policy's order: which label gives what, and the workloads. */
export interface Scheduler {
  readonly priorityLabelKey?: string;
  readonly tokensLabelKey?: string;
  readonly workloadLabelKey?: string;
  readonly fairnessLabelKey?: string;
  /** The first whose matcher holds is taken. */
  readonly workloads: readonly Workload[];
  /** For requests that no workload matches. */
  readonly default: WorkloadParameters;
  /** How long before the caller's own deadline waiting ends, in milliseconds. */
  readonly deadlineMarginMs: number;
  /** HTTP status of the answer to a request that waited too long, where the policy names one. */
  readonly deniedStatus?: number;
  /** How many requests may wait at the control point, 0 to 1e6. Sluice's own; no limit when absent. */
  readonly maxQueueLength?: number;
}

/** A token bucket: it starts full, and what is taken out of it comes back with time alone. */
export interface Bucket {
  /** Tokens it holds at most, 1 to 1e7. */
  readonly capacity: number;
  /** Tokens added in each interval, 0.001 to 1e7. */
  readonly fillAmount: number;
  readonly intervalMs: number;
  /** Evenly as time goes, else all of an interval at its end. */
  readonly continuous: boolean;
  /** Filling starts only when the time to fill has gone by since the first draw. */
  readonly delayInitialFill: boolean;
}

/** So many slots as the pools behind a policy's control points take now. */
export type Auto = 'auto';

/** What a limit key may have in use: so many slots, those of its pools, or what its bucket holds. */
export type Limit = number | Auto | Bucket;

/** What is told when too few of the requests under a policy are accepted. */
export interface Alerter {
  readonly name: string;
  readonly severity: 'info' | 'warn' | 'crit';
  /** How long the alert stays after its reason is gone, in milliseconds. */
  readonly resolveMs: number;
  readonly labels: Readonly<Record<string, string>>;
}

interface AnyPolicy {
  readonly name: string;
  /** SHA-256 of the document's canonical JSON, its first 16 hexadecimal digits. */
  readonly version: string;
  /**
   * The same of the document without its amounts: equal for two documents that put every request
   * into the same queue, at the same cost.
   */
  readonly structure: string;
  /** The values file as it was given. */
  readonly document: unknown;
  readonly selectors: readonly Selector[];
  /** The limit holds for each value of this label, and not for requests without it. */
  readonly limitByLabelKey?: string;
  readonly alerter?: Alerter;
}

/** A limit of what holds slots at a time. */
interface SlotsPolicy extends AnyPolicy {
  /** Slots: in all, or for each value of `limitByLabelKey`, which is never `auto`. */
  readonly maxConcurrency: number | Auto;
  /** Slots for each value of a label, beside `maxConcurrency`: label key -> slots. */
  readonly perLabel: Readonly<Record<string, number>>;
  /** How long an admitted request may hold its slots, in milliseconds. */
  readonly maxInflightMs: number;
}

/** Slots, and an order for who waits for them: `concurrency-scheduling/base`. */
export interface ConcurrencyPolicy extends SlotsPolicy {
  readonly kind: 'concurrency';
  readonly scheduler: Scheduler;
}

/** Slots; who finds none free is refused at once: `concurrency-limiting/base`. */
export interface LimitPolicy extends SlotsPolicy {
  readonly kind: 'limit';
  /** HTTP status of the answer to a request that was refused, where the policy names one. */
  readonly deniedStatus?: number;
}

/** Tokens over time, and an order for who waits for them: `quota-scheduling/base`. */
export interface QuotaPolicy extends AnyPolicy {
  readonly kind: 'quota';
  readonly bucket: Bucket;
  readonly scheduler: Scheduler;
}

/** Tokens over time; who finds too few is refused at once: `rate-limiting/base`. */
export interface RatePolicy extends AnyPolicy {
  readonly kind: 'rate';
  readonly bucket: Bucket;
  /** The label that says how many tokens a request takes; 1 without it. */
  readonly tokensLabelKey?: string;
  /** HTTP status of the answer to a request that was refused, where the policy names one. */
  readonly deniedStatus?: number;
}

/** One parsed values file. Frozen. */
export type Policy = ConcurrencyPolicy | LimitPolicy | QuotaPolicy | RatePolicy;

/** What scheduling needs to know of a request. */
export interface Request {
  readonly controlPoint: string;
  /** Whether nobody is admitted there now. */
  readonly isPaused?: boolean | undefined;
  readonly labels: Readonly<Record<string, string>>;
  /** The prompt's cost in tokens as far as it is known, see `estimateTokens`. */
  readonly tokensEstimate: number;
  /** The pool that will serve it; absent for flows, which take no pool slot. */
  readonly pool?: string | undefined;
  /** The `Sluice-Priority` header, 0.1 to 1000. It wins over a label that the caller may choose. */
  readonly headerPriority?: number | undefined;
  /** Labels that are not the caller's to choose: its API key set them. */
  readonly boundLabels?: readonly string[] | undefined;
  /** The caller's own deadline, in milliseconds from now. */
  readonly timeoutMs?: number | undefined;
}

/** Where a request waits, with what cost, and which limits it must pass. */
export interface Schedule {
  /** Name of the policy that gives the order; `-` when none with a scheduler selects the request. */
  readonly policy: string;
  readonly workload: string;
  /** Weight in the fair order, 0.1 to 1000. */
  readonly priority: number;
  /** Tenant or user inside the workload; empty when there is none. */
  readonly fairnessKey: string;
  /** Cost in the fair order: tokens, an integer from 1 to 1e7. */
  readonly cost: number;
  /**
   * Keys of the limiters it is admitted by: those with slots, most specific first, then the buckets
   * of quotas, which it takes its cost from.
   */
  readonly limiters: readonly string[];
  /** Those of `limiters` that refuse who finds them full, in place of letting it wait. */
  readonly refusing: readonly string[];
  /**
   * What it takes at once, before it waits: tokens of rate limiters' buckets, in name order of their
   * policies. One that says it takes 0 tokens has no entry.
   */
  readonly rates: readonly { readonly limiter: string; readonly tokens: number }[];
  /** Identity of its queue: requests with equal ones are eligible together, first in first out. */
  readonly queue: string;
  /** The smaller of the policy's and the caller's, in milliseconds. */
  readonly queueTimeoutMs: number | undefined;
  /** The smallest of the applying policies' that limit concurrency, in milliseconds. */
  readonly maxInflightMs: number | undefined;
  /** HTTP status for one that waited too long; that of `queue_timeout` when undefined. */
  readonly deniedStatus: number | undefined;
  /** HTTP status for one that a rate limiter refused; that of `rate_limited` when undefined. */
  readonly rateDeniedStatus: number | undefined;
  /** The same for one that a limiter in `refusing` refused. */
  readonly limitDeniedStatus: number | undefined;
  /**
   * How many requests may wait, where a policy says so: at its control point, the smallest of the
   * applying policies'; in its workload, that of the policy that gives the order.
   */
  readonly queueLimits: { readonly controlPoint?: number; readonly workload?: number };
  /** The applying policies that have an alerter, which hears how the request is decided. */
  readonly alerting: readonly {
    readonly policy: string;
    /** Whether it has an order of who waits, or refuses at once. */
    readonly letsWait: boolean;
  }[];
  /** Label keys that a policy asked for and the request lacks; each fell back to its default. */
  readonly defaulted: readonly string[];
}
