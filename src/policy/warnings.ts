/** What a policy says that has no effect here, or not the one that its author may think of. */
import { isMapping, join, type Problem } from '../document.ts';
import { PolicyError } from './parse.ts';
import type { GivenAlerter, GivenScheduler, GivenSelectors } from './parts.ts';
import { isFlat, readValues } from './read.ts';

/**
 * A sentence for each, with the path in the document; none for fields whose default says the same.
 * @throws PolicyError for a document that is no policy
 */
export function policyWarnings(document: unknown): string[] {
  const problems: Problem[] = [];
  const values = readValues(document, problems);
  if (values === undefined) throw new PolicyError(problems);
  switch (values.blueprint) {
    case 'concurrency-scheduling/base': {
      const block = values.policy.concurrency_scheduler;
      const at = 'policy.concurrency_scheduler';
      const limiter = isFlat(document) ? '' : join(at, 'concurrency_limiter');
      return [
        ...ofSelectors(block.selectors, at),
        ...ofLimitKey(block.concurrency_limiter.limit_by_label_key, limiter),
        ...ofScheduler(document, block.scheduler, at),
        ...ofAlerter(block.alerter, at),
      ];
    }
    case 'concurrency-limiting/base': {
      const block = values.policy.concurrency_limiter;
      const at = 'policy.concurrency_limiter';
      return [
        ...ofSelectors(block.selectors, at),
        ...ofLimitKey(block.parameters.limit_by_label_key, join(at, 'parameters')),
        ...ofTokens(block.request_parameters?.tokens_label_key, at),
        ...ofAlerter(block.alerter, at),
      ];
    }
    case 'quota-scheduling/base': {
      const block = values.policy.quota_scheduler;
      const at = 'policy.quota_scheduler';
      return [
        ...ofSelectors(block.selectors, at),
        ...ofScheduler(document, block.scheduler, at),
        ...ofAlerter(block.alerter, at),
      ];
    }
    case 'rate-limiting/base': {
      const block = values.policy.rate_limiter;
      const at = 'policy.rate_limiter';
      return [...ofSelectors(block.selectors, at), ...ofAlerter(block.alerter, at)];
    }
  }
}

function ofSelectors(selectors: GivenSelectors, block: string): string[] {
  return selectors.flatMap(({ agent_group: group = 'default', service = 'any' }, index) => {
    const at = join(join(block, 'selectors'), index);
    const why = 'the control point alone says where a policy applies';
    return [
      ...(group === 'default' ? [] : [`${join(at, 'agent_group')} is not used: ${why}`]),
      ...(service === 'any' ? [] : [`${join(at, 'service')} is not used: ${why}`]),
    ];
  });
}

/** The blueprints' own example of a label key, which Aperture's tools write into every file. */
const exampleKey = 'limit_by_label_key';

function ofLimitKey(key: string | undefined, limiter: string): string[] {
  if (key !== exampleKey) return [];
  const effect = `requests without a label ${exampleKey} pass without a limit`;
  return [
    `${join(limiter, exampleKey)} is still the example: ${effect}; leave it empty for one limit for all`,
  ];
}

/** Aperture's blueprints fill these in; a file that came from there may count on it. */
const filledIn = {
  priority_label_key: 'priority',
  tokens_label_key: 'tokens',
  workload_label_key: 'workload',
} as const;

function ofScheduler(
  document: unknown,
  scheduler: GivenScheduler | undefined,
  block: string,
): string[] {
  if (!isMapping(document) || document.uri === undefined) return [];
  const missing = Object.entries(filledIn).filter(
    ([key]) => scheduler?.[key as keyof typeof filledIn] === undefined,
  );
  if (missing.length === 0) return [];
  const names = missing.map(([key]) => key).join(', ');
  const labels = missing.map(([, label]) => label).join(', ');
  const effect = `Aperture would read the labels ${labels}, here none are read`;
  return [`${join(block, 'scheduler')} does not name ${names}: ${effect}`];
}

function ofTokens(key: string | undefined = '', block: string): string[] {
  if (key === '') return [];
  const at = join(join(block, 'request_parameters'), 'tokens_label_key');
  return [`${at} is not used: under a concurrency limit a request takes one slot`];
}

function ofAlerter(alerter: GivenAlerter | undefined, block: string): string[] {
  if (alerter?.alert_channels === undefined || alerter.alert_channels.length === 0) return [];
  const at = join(join(block, 'alerter'), 'alert_channels');
  return [`${at} is not used: the alert is the metric sluice.policy.alert`];
}
