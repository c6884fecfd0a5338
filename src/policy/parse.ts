/** Reads a values file into a policy, or says everything that is wrong with it. */
import { createHash } from 'node:crypto';
import type { Static } from 'typebox';
import { checked, deepFreeze, isMapping, join, type Problem, parseDuration } from '../document.ts';
import { SluiceError } from '../errors.ts';
import { parseMatcher } from './match.ts';
import { labelLimit, policyLimiter } from './names.ts';
import { valuesSchema } from './schema.ts';
import type { Policy, Scheduler, Selector, Workload, WorkloadParameters } from './types.ts';

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
 * `max_idle_time`) are checked and otherwise ignored.
 */
export function parsePolicy(document: unknown): Policy {
  const problems: Problem[] = plainProblems(document);
  if (problems.length > 0) throw new PolicyError(problems);
  const values = checked(valuesSchema, document, '', problems);
  if (values === undefined) throw new PolicyError(problems);

  const { policy_name: name, concurrency_scheduler: block } = values.policy;
  const limiter = block.concurrency_limiter;
  const limitByLabelKey = limiter.limit_by_label_key;
  const selectors = block.selectors.map(
    ({ control_point: controlPoint, label_matcher }): Selector => ({
      controlPoint,
      ...(label_matcher !== undefined && { matcher: parseMatcher(label_matcher) }),
    }),
  );
  return deepFreeze({
    name,
    version: versionOf(document),
    document: structuredClone(document),
    selectors,
    maxConcurrency: block.max_concurrency,
    ...(limitByLabelKey === undefined ? {} : { limitByLabelKey }),
    perLabel: { ...limiter.per_label },
    maxInflightMs: milliseconds(limiter.max_inflight_duration),
    scheduler: parseScheduler(block.scheduler ?? {}),
  });
}

/** The limits that a policy puts into Redis: limit key -> slots. */
export function limitsOf(policy: Policy): Record<string, number> {
  const limits = Object.entries(policy.perLabel).map(([label, slots]): [string, number] => [
    labelLimit(policy.name, label),
    slots,
  ]);
  if (policy.maxConcurrency !== undefined) {
    const key =
      policy.limitByLabelKey === undefined
        ? policyLimiter(policy.name)
        : labelLimit(policy.name, policy.limitByLabelKey);
    limits.push([key, policy.maxConcurrency]);
  }
  return Object.fromEntries(limits);
}

type GivenScheduler = NonNullable<
  Static<typeof valuesSchema>['policy']['concurrency_scheduler']['scheduler']
>;
type GivenParameters = NonNullable<GivenScheduler['default_workload_parameters']>;

function parseScheduler(given: GivenScheduler): Scheduler {
  const workloads = (given.workloads ?? []).map(
    (workload, index): Workload => ({
      name: workload.name ?? `workload-${index}`,
      matcher: parseMatcher(workload.label_matcher),
      parameters: parseParameters(workload.parameters ?? {}),
    }),
  );
  const margin = given.decision_deadline_margin;
  return {
    ...(given.priority_label_key && { priorityLabelKey: given.priority_label_key }),
    ...(given.tokens_label_key && { tokensLabelKey: given.tokens_label_key }),
    ...(given.workload_label_key && { workloadLabelKey: given.workload_label_key }),
    ...(given.fairness_label_key && { fairnessLabelKey: given.fairness_label_key }),
    workloads,
    default: parseParameters(given.default_workload_parameters ?? {}),
    deadlineMarginMs: margin === undefined ? 10 : milliseconds(margin),
    ...(given.denied_response_status_code !== undefined && {
      deniedStatus: given.denied_response_status_code,
    }),
  };
}

function parseParameters(given: GivenParameters): WorkloadParameters {
  return {
    priority: given.priority ?? 1,
    ...(given.tokens !== undefined && { tokens: Math.max(1, given.tokens) }),
    ...(given.queue_timeout && { queueTimeoutMs: milliseconds(given.queue_timeout) }),
  };
}

/** A duration that the schema has let pass. */
function milliseconds(given: string): number {
  const ms = parseDuration(given);
  if (ms === undefined) throw new Error(`the schema let pass the duration ${given}`);
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

/** Equal for equal documents, whatever the order of their keys. */
function versionOf(document: unknown): string {
  return createHash('sha256')
    .update(JSON.stringify(sorted(document)))
    .digest('hex')
    .slice(0, 16);
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isMapping(value)) return value;
  const keys = Object.keys(value).sort();
  return Object.fromEntries(keys.map((key) => [key, sorted(value[key])]));
}
