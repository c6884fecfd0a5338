/** Where a request waits, at what cost, and which limits it must pass. Pure. */
import { isPrintable, shown } from '../document.ts';
import { SluiceError } from '../errors.ts';
import { matches } from './match.ts';
import { labelLimiter, policyLimiter, poolLimiter, queueKey } from './names.ts';
import type { Policy, Request, Schedule, Scheduler, WorkloadParameters } from './types.ts';
import { checkPriority, checkTokens, parsePriority, parseTokens } from './values.ts';

/** The order of a control point without a policy: one queue, with no patience of its own. */
const plainScheduler: Scheduler = Object.freeze({
  workloads: [],
  default: { priority: 1 },
  deadlineMarginMs: 0,
});

/** A label's value by its key; undefined, and remembered, when the request lacks it. */
type Read = (key: string | undefined) => string | undefined;

/**
 * Schedules a request under the policies that select it. All their limiters apply; the first in
 * name order gives the order. Labels are those that `validateLabels` let pass; an empty one counts
 * as missing. Throws an `invalid_request` whose `param` names the label or header when the
 * priority, the tokens, the deadline or the control point is not valid.
 */
export function schedule(policies: readonly Policy[], request: Request): Schedule {
  checkControlPoint(request.controlPoint);
  const applying = policies.filter((policy) => selects(policy, request)).sort(byName);
  const [ordering] = applying;
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
  const limiters = limitersOf(applying, request.pool, read);
  return {
    policy,
    workload,
    priority,
    fairnessKey,
    cost,
    limiters,
    queue: queueKey({ policy, workload, priority, fairnessKey, limiters }),
    queueTimeoutMs: patienceOf(scheduler, parameters, request.timeoutMs),
    maxInflightMs: smallest(applying.map(({ maxInflightMs }) => maxInflightMs)),
    deniedStatus: scheduler.deniedStatus,
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
  if (request.headerPriority !== undefined) {
    return checkPriority(request.headerPriority, 'Sluice-Priority');
  }
  const given = read(scheduler.priorityLabelKey);
  // Aperture takes a label of 0 for "no priority given".
  if (given === undefined || given === '0') return parameters.priority;
  return parsePriority(given, `labels.${scheduler.priorityLabelKey}`);
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

/** Most specific first: labels, the pool, global limits. */
function limitersOf(policies: readonly Policy[], pool: string | undefined, read: Read): string[] {
  const byLabel: string[] = [];
  const global: string[] = [];
  for (const { name, perLabel, limitByLabelKey, maxConcurrency } of policies) {
    const keys = Object.keys(perLabel);
    if (limitByLabelKey !== undefined) keys.push(limitByLabelKey);
    else if (maxConcurrency !== undefined) global.push(policyLimiter(name));
    for (const key of keys) {
      const value = read(key);
      if (value !== undefined) byLabel.push(labelLimiter(name, key, value));
    }
  }
  return [...byLabel, ...(pool === undefined ? [] : [poolLimiter(pool)]), ...global];
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

function smallest(values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : Math.min(...values);
}

function checkControlPoint(controlPoint: string): void {
  if (controlPoint !== '' && controlPoint.length <= 128 && isPrintable(controlPoint)) return;
  const reason = `a control point is a text of 1 to 128 characters without control characters, not ${shown(controlPoint)}`;
  throw new SluiceError('invalid_request', reason, { param: 'control_point' });
}
