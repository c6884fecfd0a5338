/** Reads a values file into a policy, or says everything that is wrong with it. */
import { checked, deepFreeze, join, type Problem, parseDuration } from '../document.ts';
import { SluiceError } from '../errors.ts';
import { parseMatcher } from './match.ts';
import { labelLimit, policyLimiter } from './names.ts';
import {
  type GivenParameters,
  type GivenRateLimiter,
  type GivenScheduler,
  type GivenSelectors,
  schemaFor,
} from './schema.ts';
import { structureOf, versionOf } from './structure.ts';
import type {
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
 * The policy in a values file (parsed JSON or YAML), frozen. Throws a {@link PolicyError} with every
 * problem at once. Fields of Aperture's that have no meaning here (`uri`, `alerter`, `agent_group`,
 * `max_idle_time`, `lazy_sync`) are checked and otherwise ignored.
 */
export function parsePolicy(document: unknown): Policy {
  const problems: Problem[] = plainProblems(document);
  if (problems.length > 0) throw new PolicyError(problems);
  const values = checked(schemaFor(document), document, '', problems);
  if (values === undefined) throw new PolicyError(problems);
  const common = {
    name: values.policy.policy_name,
    version: versionOf(document),
    structure: structureOf(document),
    document: structuredClone(document),
  };
  switch (values.blueprint) {
    case 'concurrency-scheduling/base': {
      const block = values.policy.concurrency_scheduler;
      const limiter = block.concurrency_limiter;
      return deepFreeze<Policy>({
        ...common,
        kind: 'concurrency',
        selectors: parseSelectors(block.selectors),
        ...given('limitByLabelKey', limiter.limit_by_label_key),
        maxConcurrency: block.max_concurrency,
        perLabel: inKeyOrder(limiter.per_label ?? {}),
        maxInflightMs: milliseconds(limiter.max_inflight_duration),
        scheduler: parseScheduler(block.scheduler ?? {}),
      });
    }
    case 'quota-scheduling/base': {
      const block = values.policy.quota_scheduler;
      return deepFreeze<Policy>({
        ...common,
        kind: 'quota',
        selectors: parseSelectors(block.selectors),
        ...given('limitByLabelKey', labelKeyOf(block.rate_limiter)),
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
        ...given('limitByLabelKey', labelKeyOf(block.parameters)),
        bucket: parseBucket(block, block.parameters),
        ...given('tokensLabelKey', block.request_parameters?.tokens_label_key),
        ...given('deniedStatus', block.request_parameters?.denied_response_status_code),
      });
    }
  }
}

/** The limits that a policy puts into Redis: limit key -> slots or bucket. */
export function limitsOf(policy: Policy): Record<string, Limit> {
  const own =
    policy.limitByLabelKey === undefined
      ? policyLimiter(policy.name)
      : labelLimit(policy.name, policy.limitByLabelKey);
  if (policy.kind !== 'concurrency') return { [own]: policy.bucket };
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

function labelKeyOf(limiter: GivenRateLimiter): string | undefined {
  return limiter.limit_by_label_key ?? limiter.label_key;
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
    ...given('priorityLabelKey', scheduler.priority_label_key),
    ...given('tokensLabelKey', scheduler.tokens_label_key),
    ...given('workloadLabelKey', scheduler.workload_label_key),
    ...given('fairnessLabelKey', scheduler.fairness_label_key),
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

const mostNodes = 20_000;
const mostDepth = 32;

/** What is no plain data or too large to be looked at further; also ends the cycles YAML can make. */
function plainProblems(document: unknown): Problem[] {
  let nodes = 0;
  const look = (value: unknown, path: string, depth: number): Problem | undefined => {
    nodes += 1;
    if (nodes > mostNodes) return { path: '', reason: `must have at most ${mostNodes} values` };
    if (depth > mostDepth) return { path, reason: `must nest at most ${mostDepth} levels deep` };
    if (typeof value === 'object' && value !== null) {
      if (!Array.isArray(value) && !isPlain(value)) {
        return { path, reason: 'must be plain data: texts, numbers, lists and mappings' };
      }
      const inner: [string | number, unknown][] = Array.isArray(value)
        ? [...value.entries()]
        : Object.entries(value);
      for (const [key, item] of inner) {
        const problem = look(item, join(path, key), depth + 1);
        if (problem !== undefined) return problem;
      }
      return undefined;
    }
    if (value === null || ['string', 'number', 'boolean'].includes(typeof value)) return undefined;
    return { path, reason: `must be plain data, not a ${typeof value}` };
  };
  const problem = look(document, '', 0);
  return problem === undefined ? [] : [problem];
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
