/** What goes into the atomic steps and what comes out: words, not codes. */

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
  /** How long its record and its answer are kept after the end. */
  readonly keepMs: number;
  /** What the replica is sent. */
  readonly body?: string | undefined;
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
      readonly reason: 'queue_full' | 'queue_timeout' | 'stale_id';
      readonly retry_after_ms?: number;
    };

/** A replica as it is kept in Redis. */
export interface ReplicaRecord {
  readonly id: string;
  readonly pool: string;
  readonly url: string;
  readonly protocol: string;
  readonly model?: string;
  readonly max_inflight: number;
  /** Left alone until then, after a failure. */
  readonly down_until?: number;
}

/** Who holds an attempt: `token` is unique to one delivery. */
export interface Holder {
  readonly id: string;
  readonly attempt: number;
  readonly token: string;
}

export type BeginResult =
  | {
      readonly status: 'run';
      readonly body: string;
      readonly replica: ReplicaRecord;
      /** Redis time at which the lease ends, whatever the heartbeat. */
      readonly end_by: number;
      readonly cancelled?: string;
    }
  | { readonly status: 'stale'; readonly state: RequestState | 'unknown' }
  | { readonly status: 'put_back' };

export interface RenewResult {
  readonly items: readonly {
    readonly id: string;
    readonly status: 'kept' | 'abort' | 'lost';
  }[];
}

export interface Outcome {
  readonly outcome: 'done' | 'failed' | 'cancelled' | 'expired' | 'retry';
  readonly code?: string | undefined;
  readonly message?: string | undefined;
  /** Actual tokens, for settlement. */
  readonly tokens?: number | undefined;
  /** With 'retry': leave the replica alone for so long. */
  readonly replicaDownMs?: number | undefined;
  /** What the client gets, see src/stream. */
  readonly answer?: string | undefined;
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
}

export interface PolicyRecord {
  readonly name: string;
  /** Hash of the document. */
  readonly version: string;
  /** Where it was read, a file's path or 'api'. */
  readonly source: string;
  readonly document: unknown;
  /** Units by limit key. */
  readonly limits: Readonly<Record<string, number>>;
}

export type ConfigureResult =
  | {
      readonly status: 'configured';
      readonly version: number;
      readonly applied: readonly string[];
    }
  | { readonly status: 'unreadable'; readonly schema: string };

/** A live request as it is kept. Times in ms of Redis' clock. */
export interface RequestRecord {
  readonly kind: 'prompt' | 'flow';
  readonly state: RequestState;
  readonly control_point: string;
  readonly queue: string;
  readonly cost: number;
  readonly sequence: number;
  readonly created_at: number;
  readonly deadline: number;
  readonly attempt?: number;
  readonly failures?: number;
  readonly admitted_at?: number;
  readonly started_at?: number;
  readonly end_by?: number;
  readonly worker?: string;
  readonly replica?: string;
  readonly owner?: string;
  readonly pool?: string;
}

/** How a request ended. */
export interface EndedRecord {
  readonly state: RequestState;
  readonly code?: string;
  readonly message?: string;
  readonly kind: 'prompt' | 'flow';
  readonly control_point: string;
  readonly attempt?: number;
  readonly created_at: number;
  readonly admitted_at?: number;
  readonly started_at?: number;
  readonly ended_at: number;
}

export interface RequestView {
  readonly request?: RequestRecord;
  readonly ended?: EndedRecord;
  readonly position?: number;
  readonly ahead?: number;
  readonly estimated_start_ms?: number;
  readonly waits_for?: readonly { limiter: string; limit: number; in_flight: number }[];
}

export interface DomainView {
  readonly limits: Readonly<Record<string, number>>;
  readonly inFlight: Readonly<Record<string, number>>;
  /** Policies and workloads: path `policy` or `policy/workload@priority`; the root is '.'. */
  readonly nodes: readonly { path: string; waiting: number; in_flight: number; v: string }[];
  readonly waiting: number;
  readonly live: number;
  readonly bodyBytes: number;
  readonly replicas: readonly ReplicaRecord[];
  readonly members: readonly Member[];
}
