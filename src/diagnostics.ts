import { channel } from 'node:diagnostics_channel';

/**
 * What the core says happened, for whoever listens: telemetry, tests. The core never waits for a
 * listener and imports none. All values are bounded words but for `id`, which is for traces alone.
 */

/** A client's prompt has its answer or its error, at the gateway. */
export interface PromptEnded {
  readonly id: string;
  readonly controlPoint: string;
  /** `done`, or the error's code. */
  readonly outcome: string;
  readonly startedAtMs: number;
  readonly totalMs: number;
  /** From the request to the first token that went to the client, of one that streams. */
  readonly firstTokenMs: number | undefined;
}

/** A flow was admitted or rejected, at the gateway. */
export interface FlowDecided {
  readonly id: string;
  readonly controlPoint: string;
  /** `admitted`, or the error's code. */
  readonly outcome: string;
  readonly startedAtMs: number;
  readonly totalMs: number;
}

/** An attempt is over, at the worker. */
export interface AttemptEnded {
  readonly id: string;
  readonly attempt: number;
  readonly pool: string;
  readonly replica: string;
  readonly outcome: string;
  readonly startedAtMs: number;
  readonly totalMs: number;
}

/** A policy asked for a label that a request lacks, and its default was taken. */
export interface LabelMissing {
  readonly policy: string;
  /** The label's key, as the policy names it. */
  readonly label: string;
}

/** A request was let in or refused under a policy that has an alerter. */
export interface RequestDecided {
  readonly policy: string;
  readonly accepted: boolean;
}

/** What a policy wants to be told of when too few requests are accepted under it. */
export interface PolicyAlerter {
  readonly policy: string;
  readonly name: string;
  readonly severity: string;
  /** How long the alert stays after its reason is gone, ms. */
  readonly resolveMs: number;
  readonly labels: Readonly<Record<string, string>>;
}

/** How far apart the children of a node of the fair order have been served, in tokens over weight. */
export interface FairnessGap {
  /** The policy whose workloads are compared; '(all)' where policies are. */
  readonly policy: string;
  /** Between the most and the least served of those that wait and may run; 0 for fewer than two. */
  readonly gap: number;
  /** The most that it may be, from the largest costs that this gateway has seen since its start. */
  readonly bound: number;
}

/** What a gateway sees of the cluster now and then, while somebody listens. */
export interface ClusterSample {
  readonly fairness: readonly FairnessGap[];
  /** Requests that wait; `other` is for control points that no policy and no model names. */
  readonly waiting: readonly { readonly controlPoint: string; readonly waiting: number }[];
  /** Of policies and of pools. */
  readonly slots: readonly {
    readonly limiter: string;
    readonly inFlight: number;
    readonly limit: number;
  }[];
  /** Of the policies that have one. */
  readonly alerters: readonly PolicyAlerter[];
}

/** Messages are {@link LabelMissing}. */
export const labelMissing = channel('sluice:label-missing');
/** Messages are {@link PromptEnded}. */
export const promptEnded = channel('sluice:prompt-ended');
/** Messages are {@link FlowDecided}. */
export const flowDecided = channel('sluice:flow-decided');
/** Messages are {@link AttemptEnded}. */
export const attemptEnded = channel('sluice:attempt-ended');
/** Messages are {@link RequestDecided}. */
export const requestDecided = channel('sluice:request-decided');
/** Messages are {@link ClusterSample}. */
export const clusterSampled = channel('sluice:cluster-sampled');
