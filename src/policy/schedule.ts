/** Where a request waits, at what cost, and which limits it must pass. Pure. */
import { isPrintable, shown } from '../document.ts';
import { SluiceError } from '../errors.ts';
import { matches } from './match.ts';
import { labelLimiter, pauseLimiter, policyLimiter, poolLimiter, queueKey } from './names.ts';
import type {
  ConcurrencyPolicy,
  LimitPolicy,
  Policy,
  QuotaPolicy,
  RatePolicy,
  Request,
  Schedule,
  Scheduler,
  WorkloadParameters,
} from './types.ts';
import { checkPriority, checkTokens, parseCharge, parsePriority, parseTokens } from './values.ts';

/** The order where no policy gives one: one queue, with no patience of its own. */
const plainScheduler: Scheduler = Object.freeze({
  workloads: [],
  default: { priority: 1 },
  deadlineMarginMs: 0,
});

/** A label's value by its key; undefined, and remembered, when the request lacks it. */
type Read = (key: string | undefined) => string | undefined;

/**
 * Schedules a request under the policies that select it. All their limiters apply; the first in
 * name order that has a scheduler gives the order. Labels are those that `validateLabels` let pass;
 * an empty one counts as missing. Throws an `invalid_request` whose `param` names the label or
 * header when the priority, the tokens, the deadline or the control point is not valid.
 */
export function schedule(policies: readonly Policy[], request: Request): Schedule {
  checkControlPoint(request.controlPoint);
  const applying = policies.filter((policy) => selects(policy, request)).sort(byName);
  const slots = applying.filter(hasSlots);
  const limits = applying.filter((policy) => policy.kind === 'limit');
  const rates = applying.filter((policy) => policy.kind === 'rate');
  const ordering = applying.find(hasScheduler);
  const scheduler = ordering?.scheduler ?? plainScheduler;
  const defaulted = new Set<string>();
  const read: Read = (key) => {
    if (key === undefined) return undefined;
    const value = Object.hasOwn(request.labels, key) ? request.labels[key] : undefined;
    if (value !== undefined && value !== '') return value;
    defaulted.add(key);
    return undefined;
  };

  const matched = scheduler.workloads.find(({ matcher }) => matches(matcher, request.labels));
  const parameters = matched?.parameters ?? scheduler.default;
  const policy = ordering?.name ?? '-';
  const workload = read(scheduler.workloadLabelKey) ?? matched?.name ?? 'default';
  const priority = priorityOf(scheduler, parameters, request, read);
  const fairnessKey = read(scheduler.fairnessLabelKey) ?? '';
  const cost = costOf(scheduler, parameters, request, read);
  const limiters = [
    ...(request.isPaused ? [pauseLimiter(request.controlPoint)] : []),
    ...limitersOf(applying, request.pool, read),
  ];
  return {
    policy,
    workload,
    priority,
    fairnessKey,
    cost,
    limiters,
    refusing: limits.flatMap((policy) => [
      ...labelLimiters(policy, read),
      ...globalLimiters(policy),
    ]),
    rates: ratesOf(rates, read),
    queue: queueKey({ policy, workload, priority, fairnessKey, limiters }),
    queueTimeoutMs: patienceOf(scheduler, parameters, request.timeoutMs),
    maxInflightMs: smallest(slots.map(({ maxInflightMs }) => maxInflightMs)),
    deniedStatus: scheduler.deniedStatus,
    rateDeniedStatus: firstStatus(rates),
    limitDeniedStatus: firstStatus(limits),
    queueLimits: queueLimitsOf(applying, parameters),
    alerting: alertingOf(applying),
    defaulted: [...defaulted],
  };
}

function selects(policy: Policy, request: Request): boolean {
  return policy.selectors.some(
    ({ controlPoint, matcher }) =>
      controlPoint === request.controlPoint &&
      (matcher === undefined || matches(matcher, request.labels)),
  );
}

function hasSlots(policy: Policy): policy is ConcurrencyPolicy | LimitPolicy {
  return policy.kind === 'concurrency' || policy.kind === 'limit';
}

function hasScheduler(policy: Policy): policy is ConcurrencyPolicy | QuotaPolicy {
  return policy.kind === 'concurrency' || policy.kind === 'quota';
}

/** By code unit, so that every gateway sorts alike whatever its locale. */
function byName(a: Policy, b: Policy): number {
  if (a.name === b.name) return 0;
  return a.name < b.name ? -1 : 1;
}

function priorityOf(
  scheduler: Scheduler,
  parameters: WorkloadParameters,
  request: Request,
  read: Read,
): number {
  const key = scheduler.priorityLabelKey;
  const isBound = key !== undefined && request.boundLabels?.includes(key);
  if (request.headerPriority !== undefined && !isBound) {
    return checkPriority(request.headerPriority, 'Sluice-Priority');
  }
  const given = read(key);
  // Aperture takes a label of 0 for "no priority given".
  if (given === undefined || given === '0') return parameters.priority;
  return parsePriority(given, `labels.${key}`);
}

function costOf(
  scheduler: Scheduler,
  parameters: WorkloadParameters,
  request: Request,
  read: Read,
): number {
  const given = read(scheduler.tokensLabelKey);
  if (given !== undefined) return parseTokens(given, `labels.${scheduler.tokensLabelKey}`);
  return parameters.tokens ?? checkTokens(request.tokensEstimate, 'tokens');
}

/** Slots before quotas, which are spent once they are taken; of each the most specific first. */
function limitersOf(policies: readonly Policy[], pool: string | undefined, read: Read): string[] {
  const slots = policies.filter(hasSlots);
  const quotas = policies.filter((policy) => policy.kind === 'quota');
  return [
    ...slots.flatMap((policy) => labelLimiters(policy, read)),
    ...(pool === undefined ? [] : [poolLimiter(pool)]),
    ...slots.flatMap(globalLimiters),
    ...quotas.flatMap((policy) => labelLimiters(policy, read)),
    ...quotas.flatMap(globalLimiters),
  ];
}

/** A limit for each value of a label lets a request without the label pass. */
function labelLimiters(policy: Policy, read: Read): string[] {
  const keys = hasSlots(policy) ? Object.keys(policy.perLabel) : [];
  if (policy.limitByLabelKey !== undefined) keys.push(policy.limitByLabelKey);
  return keys.flatMap((key) => {
    const value = read(key);
    return value === undefined ? [] : [labelLimiter(policy.name, key, value)];
  });
}

function globalLimiters(policy: Policy): string[] {
  return policy.limitByLabelKey === undefined ? [policyLimiter(policy.name)] : [];
}

/** A limit that lets the request pass does not ask for its tokens either. */
function ratesOf(policies: readonly RatePolicy[], read: Read): Schedule['rates'] {
  return policies.flatMap((policy) => {
    const [limiter] = [...labelLimiters(policy, read), ...globalLimiters(policy)];
    if (limiter === undefined) return [];
    const given = read(policy.tokensLabelKey);
    const tokens = given === undefined ? 1 : parseCharge(given, `labels.${policy.tokensLabelKey}`);
    return tokens === 0 ? [] : [{ limiter, tokens }];
  });
}

function alertingOf(policies: readonly Policy[]): Schedule['alerting'] {
  return policies
    .filter(({ alerter }) => alerter !== undefined)
    .map((policy) => ({ policy: policy.name, letsWait: hasScheduler(policy) }));
}

/** Where a policy sets no limit there is none of its own; the domain's holds all the same. */
function queueLimitsOf(
  policies: readonly Policy[],
  parameters: WorkloadParameters,
): Schedule['queueLimits'] {
  const controlPoint = smallest(
    policies.filter(hasScheduler).flatMap(({ scheduler }) => scheduler.maxQueueLength ?? []),
  );
  const workload = parameters.maxQueueLength;
  return {
    ...(controlPoint !== undefined && { controlPoint }),
    ...(workload !== undefined && { workload }),
  };
}

function patienceOf(
  scheduler: Scheduler,
  parameters: WorkloadParameters,
  timeoutMs: number | undefined,
): number | undefined {
  if (timeoutMs === undefined) return parameters.queueTimeoutMs;
  if (!Number.isSafeInteger(timeoutMs) || timeoutMs < 1) {
    const reason = `the timeout must be a whole number of milliseconds from 1, not ${shown(timeoutMs)}`;
    throw new SluiceError('invalid_request', reason, { param: 'timeout_ms' });
  }
  // At least 1 ms, so that a deadline shorter than the margin is a deadline still.
  const own = Math.max(1, timeoutMs - scheduler.deadlineMarginMs);
  return smallest([own, parameters.queueTimeoutMs ?? own]);
}

/** Policies are in name order: the same one on every gateway. */
function firstStatus(policies: readonly { readonly deniedStatus?: number }[]): number | undefined {
  return policies.find(({ deniedStatus }) => deniedStatus !== undefined)?.deniedStatus;
}

function smallest(values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : Math.min(...values);
}

function checkControlPoint(controlPoint: string): void {
  if (controlPoint !== '' && controlPoint.length <= 128 && isPrintable(controlPoint)) return;
  const reason = `a control point is a text of 1 to 128 characters without control characters, not ${shown(controlPoint)}`;
  throw new SluiceError('invalid_request', reason, { param: 'control_point' });
}
