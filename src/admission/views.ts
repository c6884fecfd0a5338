/** What `inspect` tells. Times in ms of Redis' clock. */
import type { Member, PolicyRecord, ProbeFields, ReplicaRecord, RequestState } from './types.ts';

/** The policies of a domain. */
export interface PoliciesView {
  readonly version: number;
  /** The version that live requests are being keyed anew for. */
  readonly rekeying: number | undefined;
  /** Of the keys in Redis; undefined where there are none yet. */
  readonly schema: string | undefined;
  readonly policies: readonly PolicyRecord[];
  /** Control points where nobody is admitted. */
  readonly paused: readonly string[];
}

/** A request on a page of many. Times in ms of Redis' clock. */
export interface LiveRequest {
  readonly id: string;
  readonly kind: 'prompt' | 'flow';
  readonly created_at: number;
  readonly admitted_at?: number;
  /** When its lease is over, of one that holds slots: that of a heartbeat, or the whole. */
  readonly end_by?: number;
  readonly control_point: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly pool?: string;
  readonly cost: number;
  readonly queue: string;
  readonly state: RequestState;
}

/** A live request as it is kept. Times in ms of Redis' clock. */
export interface RequestRecord {
  readonly kind: 'prompt' | 'flow';
  readonly state: RequestState;
  readonly control_point: string;
  readonly labels: Readonly<Record<string, string>>;
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
  /** The attempts that came to nothing, the last few. */
  readonly story?: readonly FailedAttempt[];
  /** To be fetched later: whoever follows it listens to its own stream. */
  readonly job?: true;
}

/** An attempt that came to nothing. Times in ms of Redis' clock. */
export interface FailedAttempt {
  readonly attempt: number;
  /** Absent where its worker was gone before it chose one. */
  readonly replica?: string;
  readonly worker?: string;
  readonly at: number;
  readonly code?: string;
  readonly message?: string;
  /** That replica could not serve it; else it would have been another's, as when its worker stopped. */
  readonly failed_there?: true;
}

/** A prompt that failed on too many replicas. Times in ms of Redis' clock. */
export interface DeadLetter {
  readonly id: string;
  readonly control_point: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly pool: string;
  /** Tokens that it was charged. */
  readonly cost: number;
  readonly attempt: number;
  readonly created_at: number;
  readonly died_at: number;
  readonly code?: string;
  readonly message?: string;
  readonly story: readonly FailedAttempt[];
  /** Of what its replicas were sent. */
  readonly bytes: number;
}

/** Where a request waits. */
export interface Place {
  readonly id: string;
  /** 1 for the head of its queue. */
  readonly position: number;
  /** Others that are likely to go before it. */
  readonly ahead: number;
  readonly estimated_start_ms: number;
}

/** How a request ended. */
export interface EndedRecord {
  readonly state: RequestState;
  readonly code?: string;
  readonly message?: string;
  readonly kind: 'prompt' | 'flow';
  readonly control_point: string;
  readonly labels: Readonly<Record<string, string>>;
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
  readonly waits_for?: readonly WaitsFor[];
}

/** A limit that keeps a request waiting. */
export interface WaitsFor {
  readonly limiter: string;
  /** Slots, or the capacity of a quota's bucket in tokens. */
  readonly limit: number;
  readonly in_flight?: number;
  /** Some of the requests that hold it. */
  readonly held_by?: readonly string[];
  /** Tokens that a quota's bucket has now. */
  readonly tokens?: number;
  /** Until the quota can pay for this request, ms. */
  readonly refill_ms?: number;
  /** The request that the quota's next tokens are for. */
  readonly held_for?: string;
}

/** A replica and what is beside its record. */
export interface ReplicaView {
  readonly record: ReplicaRecord;
  readonly probe: ProbeFields | undefined;
  /** Prompts that run there. */
  readonly inFlight: number;
}

export interface DomainView {
  readonly limits: Readonly<Record<string, number>>;
  /** By limiter: all that are shared, and some 256 of those for values of labels. */
  readonly inFlight: Readonly<Record<string, number>>;
  /** Policies and workloads: path `policy` or `policy/workload@priority`; the root is '.'. */
  readonly nodes: readonly {
    path: string;
    waiting: number;
    in_flight: number;
    /** Virtual time, and where its own next request begins in its parent's: 1/1000 token. */
    v: string;
    start: string;
    /** It could not run while others went ahead. */
    parked: boolean;
  }[];
  /** Requests that wait at the control points that were asked for, where any do. */
  readonly lengths: ReadonlyMap<string, number>;
  readonly waiting: number;
  readonly live: number;
  readonly bodyBytes: number;
  readonly replicas: readonly ReplicaRecord[];
  readonly members: readonly Member[];
  /** Readiness probes by replica. */
  readonly probes: ReadonlyMap<string, ProbeFields>;
  /** Pools to which nobody is admitted. */
  readonly pausedPools: readonly string[];
  /** The worker that probes a pool's replicas, by pool. */
  readonly probers: Readonly<Record<string, string>>;
}
