/** Reads a values file into a policy, or says everything that is wrong with it. */
import { deepFreeze, type Problem, parseDuration } from '../document.ts';
import { SluiceError } from '../errors.ts';
import { parseMatcher } from './match.ts';
import { labelLimit, policyLimiter } from './names.ts';
import type {
  GivenAlerter,
  GivenConcurrencyLimiter,
  GivenParameters,
  GivenRateLimiter,
  GivenScheduler,
  GivenSelectors,
} from './parts.ts';
import { readValues } from './read.ts';
import { structureOf, versionOf } from './structure.ts';
import type {
  Alerter,
  Auto,
  Bucket,
  Limit,
  Policy,
  Scheduler,
  Selector,
  Workload,
  WorkloadParameters,
} from './types.ts';

/** A policy that cannot be read: an `invalid_request` that carries every problem. */
export class PolicyError extends SluiceError {
  override readonly name = 'PolicyError';
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    const lines = problems.map(({ path, reason }) => `${path || 'the document'} ${reason}`);
    super('invalid_request', `the policy is not valid: ${lines.join('; ')}`, {
      param: problems[0]?.path,
    });
    this.problems = problems;
  }
}

/**
 * The policy in a values file or in the flat form (parsed JSON or YAML), frozen. Throws a
 * {@link PolicyError} with every problem at once. What is checked and otherwise not used,
 * `policyWarnings` names.
 */
export function parsePolicy(document: unknown): Policy {
  const problems: Problem[] = [];
  const values = readValues(document, problems);
  if (values === undefined) throw new PolicyError(problems);
  const common = {
    name: values.policy.policy_name,
    // Of what was given, so that what was put last is what is kept; but who waits stays where it is
    // when a document takes the place of one in the other form.
    version: versionOf(document),
    structure: structureOf(values),
    document: structuredClone(document),
  };
  switch (values.blueprint) {
    case 'concurrency-scheduling/base': {
      const block = values.policy.concurrency_scheduler;
      return deepFreeze<Policy>({
        ...common,
        kind: 'concurrency',
        selectors: parseSelectors(block.selectors),
        ...given('alerter', parseAlerter(block.alerter, common.name)),
        ...parseSlots(block.max_concurrency, block.concurrency_limiter),
        scheduler: parseScheduler(block.scheduler ?? {}),
      });
    }
    case 'concurrency-limiting/base': {
      const block = values.policy.concurrency_limiter;
      return deepFreeze<Policy>({
        ...common,
        kind: 'limit',
        selectors: parseSelectors(block.selectors),
        ...given('alerter', parseAlerter(block.alerter, common.name)),
        ...parseSlots(block.max_concurrency, block.parameters),
        ...given('deniedStatus', block.request_parameters?.denied_response_status_code),
      });
    }
    case 'quota-scheduling/base': {
      const block = values.policy.quota_scheduler;
      return deepFreeze<Policy>({
        ...common,
        kind: 'quota',
        selectors: parseSelectors(block.selectors),
        ...given('alerter', parseAlerter(block.alerter, common.name)),
        ...given('limitByLabelKey', limitKeyOf(block.rate_limiter)),
        bucket: parseBucket(block, block.rate_limiter),
        scheduler: parseScheduler(block.scheduler ?? {}),
      });
    }
    case 'rate-limiting/base': {
      const block = values.policy.rate_limiter;
      return deepFreeze<Policy>({
        ...common,
        kind: 'rate',
        selectors: parseSelectors(block.selectors),
        ...given('alerter', parseAlerter(block.alerter, common.name)),
        ...given('limitByLabelKey', limitKeyOf(block.parameters)),
        bucket: parseBucket(block, block.parameters),
        ...given('tokensLabelKey', stated(block.request_parameters?.tokens_label_key)),
        ...given('deniedStatus', block.request_parameters?.denied_response_status_code),
      });
    }
  }
}

/** The limits of a policy by limit key. Who knows the models knows which pools `auto` stands for. */
export function limitsOf(policy: Policy): Record<string, Limit> {
  const own =
    policy.limitByLabelKey === undefined
      ? policyLimiter(policy.name)
      : labelLimit(policy.name, policy.limitByLabelKey);
  if (policy.kind === 'rate' || policy.kind === 'quota') return { [own]: policy.bucket };
  const perLabel = Object.entries(policy.perLabel).map(([label, slots]): [string, number] => [
    labelLimit(policy.name, label),
    slots,
  ]);
  return { ...Object.fromEntries(perLabel), [own]: policy.maxConcurrency };
}

function parseSelectors(selectors: GivenSelectors): Selector[] {
  return selectors.map(({ control_point: controlPoint, label_matcher: matcher }) => ({
    controlPoint,
    ...given('matcher', matcher && parseMatcher(matcher)),
  }));
}

function parseAlerter(alerter: GivenAlerter | undefined, policy: string): Alerter | undefined {
  if (alerter === undefined) return undefined;
  const { alert_name: name = policy, severity = 'info', labels = {} } = alerter;
  return { name, severity, resolveMs: milliseconds(alerter.resolve_timeout ?? '5s'), labels };
}

function parseSlots(maxConcurrency: number | Auto, limiter: GivenConcurrencyLimiter) {
  return {
    ...given('limitByLabelKey', stated(limiter.limit_by_label_key)),
    maxConcurrency,
    perLabel: inKeyOrder(limiter.per_label ?? {}),
    maxInflightMs: milliseconds(limiter.max_inflight_duration),
  };
}

function parseBucket(
  block: { readonly bucket_capacity: number; readonly fill_amount: number },
  limiter: GivenRateLimiter,
): Bucket {
  return {
    capacity: block.bucket_capacity,
    fillAmount: block.fill_amount,
    intervalMs: milliseconds(limiter.interval),
    continuous: limiter.continuous_fill ?? true,
    delayInitialFill: limiter.delay_initial_fill ?? false,
  };
}

function limitKeyOf(limiter: GivenRateLimiter): string | undefined {
  return stated(limiter.limit_by_label_key) ?? stated(limiter.label_key);
}

function parseScheduler(scheduler: GivenScheduler): Scheduler {
  const workloads = (scheduler.workloads ?? []).map(
    (workload, index): Workload => ({
      name: workload.name ?? `workload-${index}`,
      matcher: parseMatcher(workload.label_matcher),
      parameters: parseParameters(workload.parameters ?? {}),
    }),
  );
  const margin = scheduler.decision_deadline_margin;
  return {
    ...given('priorityLabelKey', stated(scheduler.priority_label_key)),
    ...given('tokensLabelKey', stated(scheduler.tokens_label_key)),
    ...given('workloadLabelKey', stated(scheduler.workload_label_key)),
    ...given('fairnessLabelKey', stated(scheduler.fairness_label_key)),
    workloads,
    default: parseParameters(scheduler.default_workload_parameters ?? {}),
    deadlineMarginMs: margin === undefined ? 10 : milliseconds(margin),
    ...given('deniedStatus', scheduler.denied_response_status_code),
    ...given('maxQueueLength', scheduler.max_queue_length),
  };
}

function parseParameters(parameters: GivenParameters): WorkloadParameters {
  const { tokens, queue_timeout: timeout } = parameters;
  return {
    priority: parameters.priority ?? 1,
    ...given('tokens', tokens === undefined ? undefined : Math.max(1, tokens)),
    ...given('queueTimeoutMs', timeout === undefined ? undefined : milliseconds(timeout)),
    ...given('maxQueueLength', parameters.max_queue_length),
  };
}

/** A label key; the empty text says that there is none. */
function stated(key: string | undefined): string | undefined {
  return key === '' ? undefined : key;
}

/** The property, or nothing where the document leaves the field out. */
function given<Name extends string, Value>(
  name: Name,
  value: Value | undefined,
): { readonly [key in Name]?: Value } {
  return (value === undefined ? {} : { [name]: value }) as { readonly [key in Name]?: Value };
}

/** So that documents that differ only in the order of their keys give requests the same queues. */
function inKeyOrder<Value>(record: Readonly<Record<string, Value>>): Record<string, Value> {
  return Object.fromEntries(Object.entries(record).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** A duration that the schema has let pass. */
function milliseconds(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined) throw new Error(`the schema let pass the duration ${text}`);
  return ms;
}
