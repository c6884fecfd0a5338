/** What goes into the atomic steps and what comes out: words, not codes. */

/** Bounds and periods of the engine, in ms unless named otherwise. */
export interface AdmissionSettings {
  /** An admitted prompt that no worker begins within this waits again. */
  readonly beginMs: number;
  /** A worker's lease between two heartbeats. */
  readonly heartbeatMs: number;
  /** A process without a sign of life for this is gone. */
  readonly memberMs: number;
  /** An offer to BullMQ that nobody confirmed is made again after this. */
  readonly offerAgainMs: number;
  /** An id older than this that nobody remembers is not a new request. */
  readonly idAgeMs: number;
  /** Bytes of all bodies in Redis. */
  readonly bodyLimit: number;
  /** Requests that may wait, in the whole domain. */
  readonly waitingLimit: number;
  /** Requests that may hold slots, or run without a limit, in the whole domain. */
  readonly heldLimit: number;
  /** Failed attempts after which a prompt has failed. */
  readonly maxAttempts: number;
  /** How long what remains of an ended request is kept, at least {@link idAgeMs}. */
  readonly keepMs: number;
  /** The same for jobs. */
  readonly keepJobMs: number;
  /** How long a dead letter is kept. */
  readonly keepDeadMs: number;
  /** Dead letters that are kept, and their bytes. */
  readonly deadLetters: number;
  readonly deadLetterBytes: number;
}

/** States of a request, see docs/design.md. */
export type RequestState =
  | 'waiting'
  | 'admitted'
  | 'running'
  | 'done'
  | 'failed'
  | 'cancelled'
  | 'expired'
  | 'rejected';

/** An attempt that is to be handed to BullMQ. */
export interface Dispatch {
  readonly id: string;
  readonly attempt: number;
  readonly pool: string;
}

export interface Submission {
  readonly id: string;
  readonly kind: 'prompt' | 'flow';
  readonly controlPoint: string;
  readonly labels: Readonly<Record<string, string>>;
  /** `policy/workload@weight/fairness key/limiters`, percent-encoded segments. */
  readonly queue: string;
  /** Tokens, 1 to 10^7. */
  readonly cost: number;
  /** Version of the policies that `queue` was computed with. */
  readonly version: number;
  /** Prompts only: the pool that serves it. */
  readonly pool?: string | undefined;
  /** The gateway with which the request ends; jobs have none. */
  readonly owner?: string | undefined;
  /** Longest time in the queue. */
  readonly timeoutMs: number;
  readonly maxInflightMs: number;
  /** To be fetched later: what remains of it is kept for longer. */
  readonly job?: boolean | undefined;
  /** Drawn from rate limits when it arrives; given back if it is never admitted. */
  readonly rates?: readonly { readonly limiter: string; readonly tokens: number }[] | undefined;
  /** Those of its limiters that refuse who finds them full, in place of letting it wait. */
  readonly refusing?: readonly string[] | undefined;
  /** Requests that may wait where it would: at its control point, in its workload. */
  readonly queueLimits?:
    | { readonly controlPoint?: number | undefined; readonly workload?: number | undefined }
    | undefined;
  /** What the replica is sent. */
  readonly body?: string | undefined;
  /** Prompts that should meet at one replica: `key:load factor`, see lua/lib/capacity.lua. */
  readonly affinity?: string | undefined;
}

export type SubmitResult =
  | {
      readonly status: 'accepted';
      readonly state: RequestState;
      /** 1 for the head of its queue; absent when it was admitted at once. */
      readonly position?: number;
      readonly ahead?: number;
      readonly estimated_start_ms?: number;
    }
  | { readonly status: 'known'; readonly state: RequestState }
  | { readonly status: 'stale_version'; readonly version: number }
  | {
      readonly status: 'rejected';
      readonly reason:
        | 'queue_full'
        | 'queue_timeout'
        | 'stale_id'
        | 'rate_limited'
        | 'over_capacity';
      /** Exact for 'rate_limited' by a bucket, else an estimate. */
      readonly retry_after_ms?: number;
      /**
       * Whose limit it was, for 'rate_limited' and 'over_capacity'; for 'queue_full' what is full:
       * 'waiting', 'held', 'queued_bytes' (of the domain), 'control_point' or 'workload'.
       */
      readonly limiter?: string;
    };

/** What somebody says of a replica. Absent fields are `undefined` or not there. */
export interface ReplicaFields {
  readonly id: string;
  readonly url: string;
  readonly protocol: string;
  readonly model?: string | undefined;
  /** How a conversation becomes one text, for a replica that takes only text. */
  readonly template?: 'mistral-instruct' | undefined;
  readonly max_inflight: number;
  /** Of an hour, in any unit; none costs nothing. */
  readonly price?: number | undefined;
  readonly zone?: string | undefined;
  readonly spot?: boolean | undefined;
  /** The name of its credentials in the configs of workers. */
  readonly credentials?: string | undefined;
}

/** A replica as it is put into a pool. */
export interface ReplicaGiven extends ReplicaFields {
  /** Its readiness probe, JSON of a {@link ProbeFields}. */
  readonly probe?: string | undefined;
  /** What it is to be; as it was when absent. */
  readonly state?: 'ready' | 'draining' | undefined;
  /** It is removed unless it is put again within so long. */
  readonly ttl_ms?: number | undefined;
}

/** When a replica is ready: a GET of `path`, or a POST of `post_data`, answers in time. */
export interface ProbeFields {
  readonly path: string;
  /** JSON text. */
  readonly post_data?: string | undefined;
  /** Failures before that only say that it still starts. */
  readonly initial_delay_ms: number;
  readonly timeout_ms: number;
  readonly period_ms: number;
  /** In a row, until it is up, and until it is down. */
  readonly success_threshold: number;
  readonly failure_threshold: number;
}

/** A replica as it is kept in Redis, see lua/lib/capacity.lua. Times in ms of Redis' clock. */
export interface ReplicaRecord extends ReplicaFields {
  readonly pool: string;
  /** Who named it. */
  readonly source?: 'config' | 'api' | 'dns';
  readonly state: 'ready' | 'draining' | 'leaving';
  readonly health: 'starting' | 'up' | 'down' | 'trial';
  /** Why it is not up; in words of ours, never the replica's. */
  readonly reason?: string;
  /** Of one that is down because prompts failed there: when it gets a trial. */
  readonly down_until?: number;
  /** Of one that has to renew itself. */
  readonly expires_at?: number;
  /** Of one that drains: when what still runs there is moved. */
  readonly drain_until?: number;
}

/** The answer to a probe. */
export interface Probed {
  /** The replica. */
  readonly id: string;
  /** The number of the probe, as the order to make it had it. */
  readonly probe: number;
  readonly result: { readonly ok: true } | { readonly ok: false; readonly reason: string };
}

/** Who holds an attempt: `token` is unique to one delivery. */
export interface Holder {
  readonly id: string;
  readonly attempt: number;
  readonly token: string;
}

/** Who keeps a flow: its caller. With `heartbeat` it ends unless there is another one in time. */
export interface FlowKeeper {
  readonly id: string;
  readonly heartbeat: boolean;
}

export type BeginResult =
  | {
      readonly status: 'run';
      readonly body: string;
      readonly replica: ReplicaRecord;
      /** Redis time at which the lease ends, whatever the heartbeat. */
      readonly end_by: number;
      /** The gateway whose client waits for it; a job has none. */
      readonly owner?: string;
      /** How long its answer is kept after its end, ms. */
      readonly keep_ms: number;
      readonly cancelled?: string;
    }
  | { readonly status: 'stale'; readonly state: RequestState | 'unknown' }
  | { readonly status: 'put_back' };

export interface Renewed {
  readonly id: string;
  readonly status: 'kept' | 'abort' | 'lost';
  /** Of a flow that is kept: for how long, ms. */
  readonly lease_ms?: number;
  /** Of a flow that is kept: whether it holds any slots. */
  readonly slots?: boolean;
}

export interface RenewResult {
  readonly items: readonly Renewed[];
}

export interface Outcome {
  readonly outcome: 'done' | 'failed' | 'cancelled' | 'expired' | 'retry';
  readonly code?: string | undefined;
  readonly message?: string | undefined;
  /** Actual tokens, for settlement. */
  readonly tokens?: number | undefined;
  /** The replica cannot serve: leave it alone for so long. */
  readonly replicaDownMs?: number | undefined;
  /** That it cannot is surely not this prompt's doing; else others have to find the same. */
  readonly isSure?: boolean | undefined;
  /** What the client gets, and the id of its entry in the request's stream, see src/stream. */
  readonly answer?: { readonly text: string; readonly at: string } | undefined;
}

export type FinishResult =
  | { readonly status: 'ended'; readonly state: RequestState }
  | { readonly status: 'retried'; readonly state: RequestState }
  | { readonly status: 'already'; readonly state: RequestState }
  | { readonly status: 'stale'; readonly state?: RequestState };

export type CancelResult =
  | { readonly status: 'cancelled' | 'cancelling' | 'unknown' }
  | { readonly status: 'already'; readonly state: RequestState };

/** A process that is alive. A worker says what it takes. */
export interface Member {
  readonly id: string;
  readonly kind: 'gateway' | 'worker';
  readonly pools?: Readonly<Record<string, number>> | undefined;
}

export interface SweepResult {
  readonly swept: number;
  /** The member was unknown until now: what it owned before may be gone. */
  readonly joined: boolean;
  /** Of a worker: the pools whose replicas it probes. */
  readonly probes: readonly string[];
}

/** A token bucket, as a policy states it. */
export interface Bucket {
  readonly capacity: number;
  /** Tokens added in each interval. */
  readonly fillAmount: number;
  readonly intervalMs: number;
  /** Added evenly; else at the end of each interval. */
  readonly continuous: boolean;
  /** Filling begins only after the time it takes to fill, counted from the first draw. */
  readonly delayInitialFill: boolean;
}

export interface PolicyRecord {
  readonly name: string;
  /** Hash of the document. */
  readonly version: string;
  /** Hash of what puts requests into queues: when it changes, live ones are keyed anew. */
  readonly structure: string;
  /** Where it was read, a file's path or 'api'. */
  readonly source: string;
  readonly document: unknown;
  /** Slots, the pools that say how many, or a bucket, by limit key. */
  readonly limits: Readonly<Record<string, number | Bucket | { readonly auto: readonly string[] }>>;
}

export interface ConfigureResult {
  readonly status: 'configured';
  readonly version: number;
  readonly applied: readonly string[];
  /** Policies that were changed by 'api' and not given back: theirs stand, not those given. */
  readonly kept?: readonly string[];
  /** Replicas that stay in another pool, since its prompts run there. */
  readonly busy?: readonly string[];
  /** Nobody is admitted until live requests are keyed anew. */
  readonly rekeying: boolean;
}

export type RemoveResult =
  | ConfigureResult
  | { readonly status: 'unknown' }
  | { readonly status: 'stale_version'; readonly version: number }
  | { readonly status: 'in_use'; readonly waiting: number; readonly in_flight: number };

export type RekeyResult =
  | { readonly status: 'rekeyed' }
  | { readonly status: 'stale_version'; readonly version: number };

/** What an Idempotency-Key is claimed for. */
export interface Claim {
  /** The request that it shall stand for. */
  readonly id: string;
  /** Hash of everything that is asked. */
  readonly content: string;
  /** The request that it stands for, when that came to nothing. */
  readonly failed?: string | undefined;
  /** How long it is kept, ms; the request itself sees to the rest. */
  readonly keepMs: number;
}

/** Results that callers keep for each other. Values are text without spaces. */
export interface CacheChange {
  readonly puts: readonly {
    readonly name: string;
    readonly ttlMs: number;
    readonly value: string;
  }[];
  readonly drops: readonly string[];
  /** Of all values together; each alone is within it. */
  readonly limitBytes: number;
}

/** What every step says beside its result. */
export interface StepReply {
  /** Redis' time, ms. */
  readonly now: number;
  /** When something is due next, ms of Redis' time; absent when nothing is. */
  readonly due?: number;
  readonly dispatch?: readonly Dispatch[];
  /** Version of the policies that live requests are being keyed anew for: somebody must do it. */
  readonly rekeying?: number;
  /** Whether anybody waits; absent when nobody does. */
  readonly waiting?: true;
}
