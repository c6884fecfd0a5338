/** Values files as they are in Aperture's world: they are read unchanged, and mean what they say. */
import { expect, test } from 'vitest';
import { parse as parseYaml } from 'yaml';
import { limitsOf, parsePolicy, policyWarnings, schedule } from '../../src/policy/index.ts';
import { problemsIn } from './support.ts';

/** The head of a generated file, and what stands in every block, with each default written out. */
const headText = `
uri: github.com/fluxninja/aperture/blueprints@latest
policy:
  policy_name: moved
  components: []
  resources:
    flow_control:
      classifiers: []`;
const alerterText = `
    alerter:
      alert_name: Too many inflight requests
      severity: info
      resolve_timeout: 5s
      alert_channels: []
      labels: {}`;
const selectorsText = `
    selectors:
      - control_point: mistral-prompt
        agent_group: default
        service: any`;
const schedulerText = `
    scheduler:
      workloads: []
      default_workload_parameters:
        priority: 1.0
        tokens: 1
      decision_deadline_margin: 0.01s
      priority_label_key: ""
      tokens_label_key: ""
      workload_label_key: ""
      fairness_label_key: ""
      denied_response_status_code: 503`;
const requestText = `
    request_parameters:
      tokens_label_key: ""
      denied_response_status_code: 429`;

function rateLimiterText(name: string): string {
  return `
    ${name}:
      interval: 60s
      limit_by_label_key: ""
      label_key: ""
      continuous_fill: true
      delay_initial_fill: false
      max_idle_time: 7200s
      lazy_sync:
        enabled: false
        num_sync: 4`;
}

const slotText = `
      limit_by_label_key: ""
      max_inflight_duration: 60s
      max_idle_time: 7200s`;

const common = {
  name: 'moved',
  selectors: [{ controlPoint: 'mistral-prompt' }],
  alerter: { name: 'Too many inflight requests', severity: 'info', resolveMs: 5_000, labels: {} },
};
const scheduler = {
  workloads: [],
  default: { priority: 1, tokens: 1 },
  deadlineMarginMs: 10,
  deniedStatus: 503,
};
const bucket = {
  capacity: 40,
  fillAmount: 20.5,
  intervalMs: 60_000,
  continuous: true,
  delayInitialFill: false,
};
const slots = { maxConcurrency: 2, perLabel: {}, maxInflightMs: 60_000 };

test.each([
  [
    'concurrency-scheduling/base',
    `
  concurrency_scheduler:
    max_concurrency: 2.0
    concurrency_limiter:${slotText}${schedulerText}${alerterText}${selectorsText}`,
    { ...common, kind: 'concurrency', ...slots, scheduler },
    { moved: 2 },
  ],
  [
    'concurrency-limiting/base',
    `
  concurrency_limiter:
    max_concurrency: 2
    parameters:${slotText}${requestText}${alerterText}${selectorsText}`,
    { ...common, kind: 'limit', ...slots, deniedStatus: 429 },
    { moved: 2 },
  ],
  [
    'quota-scheduling/base',
    `
  quota_scheduler:
    bucket_capacity: 40
    fill_amount: 20.5${rateLimiterText('rate_limiter')}${schedulerText}${alerterText}${selectorsText}`,
    { ...common, kind: 'quota', bucket, scheduler },
    { moved: bucket },
  ],
  [
    'rate-limiting/base',
    `
  rate_limiter:
    bucket_capacity: 40
    fill_amount: 20.5${rateLimiterText('parameters')}${requestText}${alerterText}${selectorsText}`,
    { ...common, kind: 'rate', bucket, deniedStatus: 429 },
    { moved: bucket },
  ],
])('%s with every default written out', (blueprint, block, expected, limits) => {
  const file: unknown = parseYaml(`blueprint: ${blueprint}${headText}${block}`);
  const { version, structure, document, ...said } = parsePolicy(file);
  expect(said).toEqual(expected);
  expect(document).toEqual(file);
  expect([version, structure]).toEqual([
    expect.stringMatching(/^\w{16}$/),
    expect.stringMatching(/^\w{16}$/),
  ]);
  expect(limitsOf(parsePolicy(file))).toEqual(limits);
  expect(policyWarnings(file)).toEqual([]);
  // It limits everybody: none of the empty label keys asks for a label.
  const request = { controlPoint: 'mistral-prompt', labels: {}, tokensEstimate: 5 };
  const { limiters, rates, defaulted } = schedule([parsePolicy(file)], request);
  expect([...limiters, ...rates.map(({ limiter }) => limiter)]).toEqual(['moved']);
  expect(defaulted).toEqual([]);
});

/** What the generator writes where a value has to be filled in. */
const unfilled = '__REQUIRED_FIELD__';

test('a generated file says what is to be filled in, and is read when it is', () => {
  const generated = (name: string, slots: string, time: string, point: string) => `
blueprint: concurrency-scheduling/base

policy:
  components: []
  # Required: True
  policy_name: ${name}
  resources:
    flow_control:
      classifiers: []
  concurrency_scheduler:
    alerter:
      alert_name: "Too many inflight requests"
    concurrency_limiter:
      limit_by_label_key: "limit_by_label_key"
      max_inflight_duration: ${time}
    max_concurrency: ${slots}
    scheduler:
      priority_label_key: "priority"
      tokens_label_key: "tokens"
      workload_label_key: "workload"
    selectors:
      -
        control_point: ${point}`;
  const empty: unknown = parseYaml(generated(unfilled, unfilled, unfilled, unfilled));
  const at = 'policy.concurrency_scheduler';
  expect(Object.keys(problemsIn(empty)).toSorted()).toEqual([
    `${at}.concurrency_limiter.max_inflight_duration`,
    `${at}.max_concurrency`,
    `${at}.selectors[0].control_point`,
    'policy.policy_name',
  ]);
  const filled: unknown = parseYaml(generated('moved', '2', '60s', 'mistral-prompt'));
  expect(parsePolicy(filled)).toMatchObject({
    limitByLabelKey: 'limit_by_label_key',
    maxConcurrency: 2,
    alerter: { name: 'Too many inflight requests', resolveMs: 5_000 },
    scheduler: { priorityLabelKey: 'priority', tokensLabelKey: 'tokens' },
  });
  expect(policyWarnings(filled)).toEqual([
    expect.stringContaining(`${at}.concurrency_limiter.limit_by_label_key is still the example`),
  ]);
});

test('a limit for each user, as the guide to concurrency limits has it', () => {
  const policy = parsePolicy(
    parseYaml(`
blueprint: concurrency-limiting/base
uri: ../../blueprints
policy:
  components: []
  policy_name: per-user
  resources: {flow_control: {classifiers: []}}
  concurrency_limiter:
    alerter: {alert_name: busy}
    max_concurrency: 20
    parameters: {limit_by_label_key: "user_id", max_inflight_duration: 60s}
    request_parameters: {}
    selectors: [{control_point: a-feature}]
`),
  );
  expect(policy).toMatchObject({ kind: 'limit', limitByLabelKey: 'user_id', maxConcurrency: 20 });
  const request = { controlPoint: 'a-feature', labels: { user_id: 'u1' }, tokensEstimate: 1 };
  expect(schedule([policy], request).refusing).toEqual(['per-user.user_id=u1']);
});

test('quotas and rate limits with the names of older versions, and workloads', () => {
  const quota = parsePolicy(
    parseYaml(`
blueprint: quota-scheduling/base
policy:
  policy_name: between-services
  quota_scheduler:
    bucket_capacity: 500
    fill_amount: 25
    rate_limiter: {label_key: api_key, interval: 1s, lazy_sync: {enabled: true, num_sync: 4}}
    scheduler:
      workloads:
        - label_matcher: {match_labels: {call: background}}
          parameters: {priority: 50.0}
        - label_matcher: {match_labels: {call: interactive}}
          parameters: {priority: 200.0}
    selectors: [{control_point: an-api, service: any}]
`),
  );
  expect(quota).toMatchObject({
    kind: 'quota',
    limitByLabelKey: 'api_key',
    bucket: { capacity: 500, fillAmount: 25, intervalMs: 1_000 },
    scheduler: { workloads: [{ parameters: { priority: 50 } }, { parameters: { priority: 200 } }] },
  });
  const rate = parsePolicy(
    parseYaml(`
blueprint: rate-limiting/base
policy:
  policy_name: rate-limiting-test
  rate_limiter:
    bucket_capacity: 2
    fill_amount: 2
    parameters: {interval: 30s, limit_by_label_key: user_id, continuous_fill: false, delay_initial_fill: true}
    request_parameters: {tokens_label_key: tokens, denied_response_status_code: 429}
    selectors: [{control_point: rate-limiting-feature}]
    alerter: {alert_name: too-fast}
`),
  );
  expect(rate).toMatchObject({
    kind: 'rate',
    limitByLabelKey: 'user_id',
    tokensLabelKey: 'tokens',
    deniedStatus: 429,
    bucket: { capacity: 2, fillAmount: 2, intervalMs: 30_000, continuous: false },
  });
});

test('what Sluice has not is refused by name, with the reason, whatever else is right', () => {
  const problems = problemsIn(
    parseYaml(`
blueprint: rate-limiting/base
policy:
  policy_name: refused
  components: [{decider: {operator: gte}}]
  resources:
    flow_control:
      classifiers: [{selectors: [{control_point: a}], rego: {}}]
      flux_meters: {latency: {selectors: []}}
    infra_meters: {postgresql: {per_agent_group: true}}
  rate_limiter:
    bucket_capacity: 2
    fill_amount: 2
    parameters: {interval: 30s}
    selectors: [{control_point: a}]
`),
  );
  expect(problems).toEqual({
    'policy.components': expect.stringContaining('Sluice has no circuit components'),
    'policy.resources.flow_control.classifiers': expect.stringContaining('no classifiers'),
    'policy.resources.flow_control.flux_meters': expect.stringContaining('no flux meters'),
    'policy.resources.infra_meters': expect.stringContaining('no infra meters'),
  });
});
