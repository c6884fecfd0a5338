import { type ErrorCode, errorTable, type SluiceError } from '../../errors.ts';
import { type Policy, parseLimiter, type Schedule } from '../../policy/index.ts';
import { retryAfterMs } from '../answers.ts';
import type { AdmittedFlow } from '../flows.ts';
import type { CheckResponse, Duration, LimiterDecision, RejectReason } from './messages.ts';

/**
 * What an Aperture client is answered. It takes every gRPC error, a missed deadline included, for
 * "run": so whatever a flow was refused for is said in a response. Pure.
 */

/** Under these names a client's span carries what it was answered. */
export const requestIdLabel = 'sluice.request_id';
const codeLabel = 'sluice.code';
const messageLabel = 'sluice.message';

export interface Question {
  readonly controlPoint: string;
  readonly labelKeys: readonly string[];
  readonly startedAtMs: number;
}

/** The flow runs. Without an `id` there is nothing to end. */
export function accepted(
  question: Question,
  flow?: AdmittedFlow,
  policies: readonly Policy[] = [],
): CheckResponse {
  const holds = flow?.holdsSlots === true;
  const id = holds ? flow.id : '';
  return {
    ...heard(question),
    flow_label_keys: question.labelKeys,
    telemetry_flow_labels: holds ? { [requestIdLabel]: id } : {},
    decision_type: 'DECISION_TYPE_ACCEPTED',
    limiter_decisions: flow ? decisionsOf(id, flow.plan, policies) : [],
    expect_end: holds,
  };
}

/** It does not, and the client is told when to try again. */
export function rejected(question: Question, error: SluiceError, id?: string): CheckResponse {
  const { code, message, httpStatus } = error;
  const waitMs = retryAfterMs(error);
  return {
    ...heard(question),
    flow_label_keys: [],
    telemetry_flow_labels: {
      [codeLabel]: code,
      [messageLabel]: message,
      ...(id !== undefined && { [requestIdLabel]: id }),
    },
    decision_type: 'DECISION_TYPE_REJECTED',
    reject_reason: reasons[code] ?? 'REJECT_REASON_NONE',
    ...(waitMs !== undefined && { wait_time: durationOf(waitMs) }),
    denied_response_status_code: httpStatus ?? statuses[code] ?? errorTable[code].http,
  };
}

const reasons: Partial<Record<ErrorCode, RejectReason>> = {
  rate_limited: 'REJECT_REASON_RATE_LIMITED',
  queue_timeout: 'REJECT_REASON_NO_TOKENS',
  queue_full: 'REJECT_REASON_NO_TOKENS',
};

/** Where Aperture's schedulers answer with another status than HTTP's clients get here. */
const statuses: Partial<Record<ErrorCode, number>> = { queue_timeout: 503, queue_full: 503 };

/** Of what may be no control point at all only so much goes back. */
const echoed = 128;

function heard({ controlPoint, startedAtMs }: Question) {
  return {
    start: durationOf(startedAtMs),
    end: durationOf(Date.now()),
    control_point: controlPoint.slice(0, echoed),
  };
}

/** A span of time, or a moment since 1970: protobuf has the same fields for both. */
function durationOf(ms: number): Duration {
  return { seconds: Math.floor(ms / 1_000), nanos: (ms % 1_000) * 1_000_000 };
}

/** One for each policy that has a limit for the flow. Clients send back what is said of slots to end it. */
function decisionsOf(id: string, plan: Schedule, policies: readonly Policy[]): LimiterDecision[] {
  const charges = plan.rates.map(({ limiter, tokens }) => [limiter, tokens] as const);
  const own = [...plan.limiters.map((limiter) => [limiter, plan.cost] as const), ...charges];
  return policies.flatMap((policy) => {
    const mine = own.filter(([limiter]) => ownerOf(limiter) === policy.name);
    const [, consumed] = mine[0] ?? [];
    if (consumed === undefined) return [];
    const label = mine.flatMap(([limiter]) => labelOf(limiter)).join(',');
    return [decisionOf(policy, { id, label, tokens_info: { consumed }, plan })];
  });
}

function decisionOf(
  { kind, name, version }: Policy,
  about: { id: string; label: string; tokens_info: object; plan: Schedule },
): LimiterDecision {
  const { id, label, tokens_info, plan } = about;
  const head = { policy_name: name, policy_hash: version, component_id: 'root', dropped: false };
  const order = { workload_index: plan.workload, priority: plan.priority };
  const info = { label, tokens_info };
  switch (kind) {
    case 'rate':
      return { ...head, rate_limiter_info: info };
    case 'quota':
      return { ...head, quota_scheduler_info: { ...info, ...order } };
    case 'limit':
      return { ...head, concurrency_limiter_info: { ...info, request_id: id } };
    case 'concurrency':
      return { ...head, concurrency_scheduler_info: { ...info, ...order, request_id: id } };
  }
}

function ownerOf(limiter: string): string | undefined {
  const name = parseLimiter(limiter);
  return 'policy' in name ? name.policy : undefined;
}

function labelOf(limiter: string): string[] {
  const name = parseLimiter(limiter);
  return name.kind === 'label' && name.value !== undefined ? [`${name.label}:${name.value}`] : [];
}
