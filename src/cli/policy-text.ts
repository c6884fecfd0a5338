import { stringify } from 'yaml';
import { formatDuration } from '../duration.ts';
import { PolicyError, parsePolicy } from '../policy/index.ts';

/** Policies as people read them. */

/** What a policy limits, in one line. */
export function describePolicy(document: unknown): string {
  const policy = parsePolicy(document);
  const key = policy.limitByLabelKey;
  const each = key === undefined ? '' : ` for each ${key}`;
  const points = policy.selectors.map((selector) => selector.controlPoint).join(', ');
  if (policy.kind === 'concurrency' || policy.kind === 'limit') {
    const others = policy.kind === 'limit' ? ', and others are refused,' : '';
    const most =
      policy.maxConcurrency === 'auto' ? 'what the pools take (auto)' : policy.maxConcurrency;
    return `at most ${most} at once${each}${others} on ${points}`;
  }
  const { capacity, fillAmount, intervalMs } = policy.bucket;
  const what = policy.kind === 'rate' ? 'rate limit' : 'quota';
  const rate = `${capacity}, and ${fillAmount} more each ${formatDuration(intervalMs)}`;
  return `a ${what} of ${rate}${each && `,${each}`} on ${points}`;
}

/** The same of a gateway's policies, which may be newer than this command. */
export function describeIfKnown(document: unknown): string {
  try {
    return describePolicy(document);
  } catch (error) {
    if (error instanceof PolicyError) return '(this version of sluice cannot read it)';
    throw error;
  }
}

/** A values file that gives this document when it is read. */
export function policyYaml(document: unknown): string {
  return stringify(document, yamlOptions);
}

/** The same for equal documents, whatever the order of their keys. */
export function canonicalYaml(document: unknown): string {
  return stringify(document, { ...yamlOptions, sortMapEntries: true });
}

/** A line for each value, however long: lines are what is compared. */
const yamlOptions = { lineWidth: 0, aliasDuplicateObjects: false } as const;
