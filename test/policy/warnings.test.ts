/** What is accepted and has no effect is said, with its path; what has one, or changes nothing, is not. */
import { expect, test } from 'vitest';
import { PolicyError, policyWarnings } from '../../src/policy/index.ts';
import { flatValues, limitValues, quotaValues, rateValues, values } from './support.ts';

const builders = {
  concurrency_scheduler: values,
  concurrency_limiter: limitValues,
  quota_scheduler: quotaValues,
  rate_limiter: rateValues,
};

test.each(Object.entries(builders))('%s: selectors and alert channels', (block, build) => {
  const at = `policy.${block}`;
  const selectors = [
    { control_point: 'a' },
    { control_point: 'b', agent_group: 'default', service: 'any' },
    { control_point: 'c', agent_group: 'eu', service: 'web' },
  ];
  expect(policyWarnings(build())).toEqual([]);
  const alerter = {
    alert_name: 'slow',
    severity: 'warn',
    resolve_timeout: '5m',
    labels: { a: 'b' },
  };
  expect(policyWarnings(build({ block: { alerter } }))).toEqual([]);
  expect(policyWarnings(build({ block: { alerter: { alert_channels: [] } } }))).toEqual([]);
  const loud = { ...alerter, alert_channels: ['pager'] };
  expect(policyWarnings(build({ block: { selectors, alerter: loud } }))).toEqual([
    `${at}.selectors[2].agent_group is not used: the control point alone says where a policy applies`,
    `${at}.selectors[2].service is not used: the control point alone says where a policy applies`,
    `${at}.alerter.alert_channels is not used: the alert is the metric sluice.policy.alert`,
  ]);
});

test('label keys that Aperture fills in, in a file that came from there', () => {
  const uri = 'github.com/fluxninja/aperture/blueprints@latest';
  const at = 'policy.quota_scheduler.scheduler';
  const bare = quotaValues({}) as object;
  expect(policyWarnings(bare)).toEqual([]);
  expect(policyWarnings({ ...bare, uri })).toEqual([
    `${at} does not name priority_label_key, tokens_label_key, workload_label_key: ` +
      'Aperture would read the labels priority, tokens, workload, here none are read',
  ]);
  const some = { priority_label_key: 'p', tokens_label_key: '' };
  expect(policyWarnings({ ...(quotaValues({ scheduler: some }) as object), uri })).toEqual([
    `${at} does not name workload_label_key: ` +
      'Aperture would read the labels workload, here none are read',
  ]);
  expect(policyWarnings({ ...(values() as object), uri })).toEqual([]);
});

test('tokens of a concurrency limit have no effect, those of a rate limit have', () => {
  const block = { request_parameters: { tokens_label_key: 'tokens' } };
  expect(policyWarnings(limitValues({ block }))).toEqual([
    'policy.concurrency_limiter.request_parameters.tokens_label_key is not used: under a ' +
      'concurrency limit a request takes one slot',
  ]);
  expect(policyWarnings(rateValues({ block }))).toEqual([]);
  const empty = { request_parameters: { tokens_label_key: '' } };
  expect(policyWarnings(limitValues({ block: empty }))).toEqual([]);
});

test("the example's label key limits nobody, which is said", () => {
  const limiter = { limit_by_label_key: 'limit_by_label_key' };
  const warning = (path: string) => [
    `${path} is still the example: requests without a label limit_by_label_key pass without a ` +
      'limit; leave it empty for one limit for all',
  ];
  expect(policyWarnings(values({ limiter }))).toEqual(
    warning('policy.concurrency_scheduler.concurrency_limiter.limit_by_label_key'),
  );
  expect(policyWarnings(limitValues({ limiter }))).toEqual(
    warning('policy.concurrency_limiter.parameters.limit_by_label_key'),
  );
  expect(policyWarnings(flatValues(limiter))).toEqual(warning('limit_by_label_key'));
  expect(policyWarnings(flatValues({ limit_by_label_key: 'user_id' }))).toEqual([]);
});

test('bookkeeping of buckets has defaults that do no harm', () => {
  const limiter = { max_idle_time: '1h', lazy_sync: { enabled: true, num_sync: 8 } };
  expect(policyWarnings(quotaValues({ limiter }))).toEqual([]);
  expect(policyWarnings(limitValues({ limiter: { max_idle_time: '1h' } }))).toEqual([]);
});

test('what is no policy is refused', () => {
  expect(() => policyWarnings({})).toThrow(PolicyError);
});
