/**
 * What identifies a policy's content. The version changes with any value; the structure only with
 * what decides where a request waits and what it costs, so a policy whose amounts alone were
 * changed leaves those that wait where they are.
 */
import { createHash } from 'node:crypto';
import { isMapping } from '../document.ts';

/** Equal for equal documents, whatever the order of their keys. */
export function versionOf(document: unknown): string {
  return hashOf(sorted(document));
}

/** Equal for valid documents that differ only in how much, how long, or what Sluice ignores. */
export function structureOf(document: unknown): string {
  return hashOf(sorted(withoutAmounts(document, '')));
}

const slotAmounts = ['max_inflight_duration', 'max_idle_time'];
const limiterAmounts = [
  'interval',
  'continuous_fill',
  'delay_initial_fill',
  'max_idle_time',
  'lazy_sync',
];
const blockAmounts = [
  'max_concurrency',
  'bucket_capacity',
  'fill_amount',
  'alerter',
  'selectors[].agent_group',
  'selectors[].service',
];
const schedulerAmounts = [
  'max_queue_length',
  'default_workload_parameters.queue_timeout',
  'default_workload_parameters.max_queue_length',
  'workloads[].parameters.queue_timeout',
  'workloads[].parameters.max_queue_length',
];

const scheduling = 'policy.concurrency_scheduler';
const limiting = 'policy.concurrency_limiter';
const quota = 'policy.quota_scheduler';
const rate = 'policy.rate_limiter';

/** By path and not by name, since a label may be named like any of them. */
const amounts: ReadonlySet<string> = new Set([
  'uri',
  ...[scheduling, limiting, quota, rate].flatMap((block) => below(block, blockAmounts)),
  ...below(`${scheduling}.concurrency_limiter`, slotAmounts),
  ...below(`${scheduling}.scheduler`, schedulerAmounts),
  ...below(`${limiting}.parameters`, slotAmounts),
  `${limiting}.request_parameters`,
  ...below(`${quota}.rate_limiter`, limiterAmounts),
  ...below(`${quota}.scheduler`, schedulerAmounts),
  ...below(`${rate}.parameters`, limiterAmounts),
]);

/** Label keys, of which an empty one says the same as none. */
const labelKeys: ReadonlySet<string> = new Set(
  [
    `${scheduling}.concurrency_limiter`,
    `${scheduling}.scheduler`,
    `${limiting}.parameters`,
    `${quota}.rate_limiter`,
    `${quota}.scheduler`,
    `${rate}.parameters`,
    `${rate}.request_parameters`,
  ].flatMap((path) =>
    below(path, [
      'limit_by_label_key',
      'label_key',
      'priority_label_key',
      'tokens_label_key',
      'workload_label_key',
      'fairness_label_key',
    ]),
  ),
);

/** Their keys say which limiters a request needs, their values are amounts. */
const perLabel = [
  `${scheduling}.concurrency_limiter.per_label`,
  `${limiting}.parameters.per_label`,
];

function below(path: string, fields: readonly string[]): string[] {
  return fields.map((field) => `${path}.${field}`);
}

/** A mapping or list that is left empty goes too: it says the same as none. */
function withoutAmounts(value: unknown, path: string): unknown {
  if (Array.isArray(value)) return value.map((item) => withoutAmounts(item, `${path}[]`));
  if (!isMapping(value)) return value;
  if (perLabel.includes(path)) return Object.keys(value).toSorted();
  const kept = Object.entries(value).flatMap(([key, inner]): [string, unknown][] => {
    const at = path === '' ? key : `${path}.${key}`;
    if (amounts.has(at) || (inner === '' && labelKeys.has(at))) return [];
    const left = withoutAmounts(inner, at);
    return isEmpty(left) ? [] : [[key, left]];
  });
  return Object.fromEntries(kept);
}

function isEmpty(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}

function hashOf(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16);
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isMapping(value)) return value;
  const keys = Object.keys(value).sort();
  return Object.fromEntries(keys.map((key) => [key, sorted(value[key])]));
}
