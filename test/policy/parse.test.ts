import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parse as parseYaml } from 'yaml';
import { limitsOf, parseLimiter, parsePolicy } from '../../src/policy/index.ts';
import { problemsIn, schedulerIn, values } from './support.ts';

const at = 'policy.concurrency_scheduler';

test("Aperture's own example file is read as it is", () => {
  const policy = parsePolicy(
    parseYaml(`
blueprint: concurrency-scheduling/base
uri: github.com/fluxninja/aperture/blueprints@latest
policy:
  policy_name: concurrency-scheduling-test
  components: []
  resources: {flow_control: {classifiers: []}}
  concurrency_scheduler:
    max_concurrency: 2
    alerter: {alert_name: waiting, severity: warn}
    concurrency_limiter: {max_inflight_duration: "60s", max_idle_time: 7200s}
    scheduler: {priority_label_key: priority, tokens_label_key: tokens, workload_label_key: workload}
    selectors: [{control_point: mistral-prompt, agent_group: default, service: any}]
`),
  );
  expect(policy).toMatchObject({
    kind: 'concurrency',
    name: 'concurrency-scheduling-test',
    selectors: [{ controlPoint: 'mistral-prompt' }],
    maxConcurrency: 2,
    perLabel: {},
    maxInflightMs: 60_000,
    scheduler: {
      priorityLabelKey: 'priority',
      tokensLabelKey: 'tokens',
      workloadLabelKey: 'workload',
      workloads: [],
      default: { priority: 1 },
      deadlineMarginMs: 10,
    },
  });
  expect(policy.version).toMatch(/^[0-9a-f]{16}$/);
  expect(limitsOf(policy)).toEqual({ 'concurrency-scheduling-test': 2 });
});

test('workloads, matchers and durations are read into plain units', () => {
  const matcher = { match_labels: { tier: 'paid' } };
  const parameters = { priority: 10, tokens: 0, queue_timeout: '1m30s' };
  const scheduler = schedulerIn(
    values({
      scheduler: {
        workloads: [{ name: 'paid', label_matcher: matcher, parameters }, { label_matcher: {} }],
        decision_deadline_margin: '0.5s',
        denied_response_status_code: 429,
      },
    }),
  );
  expect(scheduler.workloads).toEqual([
    {
      name: 'paid',
      matcher: { matchLabels: { tier: 'paid' }, matchList: [] },
      parameters: { priority: 10, tokens: 1, queueTimeoutMs: 90_000 },
    },
    {
      name: 'workload-1',
      matcher: { matchLabels: {}, matchList: [] },
      parameters: { priority: 1 },
    },
  ]);
  expect(scheduler).toMatchObject({ deadlineMarginMs: 500, deniedStatus: 429 });
});

test('a document with many mistakes is refused once, with all of them and what would be right', () => {
  const found = problemsIn({
    blueprint: 'load-scheduling/base',
    colour: 'blue',
    policy: {
      policy_name: '-',
      components: [{}],
      resources: { flow_control: { classifiers: [{}] } },
      concurrency_scheduler: {
        max_concurency: 2,
        max_concurrency: 0.5,
        selectors: [{ control_point: 'a\nb', service: '' }, {}],
        concurrency_limiter: {
          max_inflight_duration: '60',
          limit_by_label_key: 'user_id',
          per_label: { user_id: 2, tenant: Number.NaN, 'a\u0001b': 1 },
        },
        scheduler: {
          priority_label_key: 'a\nb',
          fairness_label_key: 'x'.repeat(10_240),
          default_workload_parameters: { priority: Number.POSITIVE_INFINITY, tokens: -1 },
          workloads: [
            { parameters: { priority: 1e9, queue_timeout: '-5s' } },
            { label_matcher: { match_list: [{ key: 'a', operator: 'In' }] } },
            { label_matcher: { match_list: [{ key: 'a', operator: 'Exists', values: ['b'] }] } },
            { label_matcher: { match_labels: { a: 5 } } },
            {
              label_matcher: { expression: { not: { label_matches: { label: 'a', regex: '(' } } } },
            },
            { label_matcher: { expression: { any: { of: [{ label_exist: 'a' }, {}] } } } },
          ],
        },
      },
    },
  });
  expect(Object.keys(found).sort()).toEqual(
    [
      'blueprint',
      'colour',
      'policy.policy_name',
      'policy.components',
      'policy.resources.flow_control.classifiers',
      `${at}.max_concurency`,
      `${at}.max_concurrency`,
      `${at}.selectors[0].control_point`,
      `${at}.selectors[0].service`,
      `${at}.selectors[1].control_point`,
      `${at}.concurrency_limiter.max_inflight_duration`,
      `${at}.concurrency_limiter.per_label.user_id`,
      `${at}.concurrency_limiter.per_label.tenant`,
      `${at}.concurrency_limiter.per_label["a\\u0001b"]`,
      `${at}.scheduler.priority_label_key`,
      `${at}.scheduler.fairness_label_key`,
      `${at}.scheduler.default_workload_parameters.priority`,
      `${at}.scheduler.default_workload_parameters.tokens`,
      `${at}.scheduler.workloads[0].parameters.priority`,
      `${at}.scheduler.workloads[0].parameters.queue_timeout`,
      `${at}.scheduler.workloads[0].label_matcher`,
      `${at}.scheduler.workloads[1].label_matcher.match_list[0].values`,
      `${at}.scheduler.workloads[2].label_matcher.match_list[0].values`,
      `${at}.scheduler.workloads[3].label_matcher.match_labels.a`,
      `${at}.scheduler.workloads[4].label_matcher.expression.not.label_matches.regex`,
      `${at}.scheduler.workloads[5].label_matcher.expression.any.of[0].label_exist`,
      `${at}.scheduler.workloads[5].label_matcher.expression.any.of[1]`,
    ].sort(),
  );
  expect(found.blueprint).toContain('`rate-limiting/base`, the blueprints that Sluice reads, not');
  expect(found[`${at}.max_concurency`]).toBe('is not a field; did you mean `max_concurrency`?');
  expect(found[`${at}.max_concurrency`]).toBe(
    'must be a whole number from 1 to 1000000, or `auto` for what the pools take, not 0.5',
  );
  expect(found[`${at}.concurrency_limiter.max_inflight_duration`]).toContain('such as "60s"');
  for (const reason of Object.values(found)) {
    expect(reason.length).toBeLessThan(400);
    expect(reason).not.toMatch(/\p{Cc}/u);
  }
});

test('what is missing is named with what it must be', () => {
  expect(problemsIn({ blueprint: 'concurrency-scheduling/base', policy: {} })).toEqual({
    'policy.policy_name': expect.stringContaining('is missing; it must be a name'),
    'policy.concurrency_scheduler': 'is missing; it must be a mapping',
  });
  for (const document of [undefined, null, 5, 'text', []]) {
    expect(Object.keys(problemsIn(document))).toEqual(['']);
  }
});

test('documents that could not be stored again, or never end, are refused instead of followed', () => {
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  let deep: unknown = { label_exists: 'a' };
  for (let level = 0; level < 40; level += 1) deep = { not: deep };
  const wide = Array.from({ length: 30_000 }, () => 1);
  const cases: [unknown, string][] = [
    [cycle, 'must nest at most 32 levels deep'],
    [deep, 'must nest at most 32 levels deep'],
    [wide, 'must have at most 20000 values'],
    [new Date(), 'must be plain data'],
    [() => 1, 'must be plain data'],
    [5n, 'must be plain data'],
    [Symbol('x'), 'must be plain data'],
  ];
  for (const [odd, reason] of cases) {
    const reasons = Object.values(problemsIn(values({ block: { odd } })));
    expect(reasons).toEqual([expect.stringContaining(reason)]);
  }
});

test('limits: one for all, one for each value of a label, and one beside it for other labels', () => {
  const both = parsePolicy(values({ limiter: { per_label: { user_id: 2 } } }));
  expect(limitsOf(both)).toEqual({ mistral: 4, 'mistral.user_id': 2 });
  const byLabel = parsePolicy(
    values({ limiter: { limit_by_label_key: 'tenant', per_label: { user_id: 2 } } }),
  );
  expect(limitsOf(byLabel)).toEqual({ 'mistral.tenant': 4, 'mistral.user_id': 2 });
});

test('limit keys read back as the policy and the labels that they came from', () => {
  const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,30}$/);
  const label = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 30 })
    .filter((key) => key.isWellFormed() && !/\p{Cc}/u.test(key));
  const perLabel = fc.dictionary(label, fc.integer({ min: 1, max: 1000 }), {
    maxKeys: 8,
    noNullPrototype: true,
  });
  fc.assert(
    fc.property(name, perLabel, fc.integer({ min: 1, max: 1_000_000 }), (policy, caps, most) => {
      const document = values({
        name: policy,
        limiter: { per_label: caps },
        block: { max_concurrency: most },
      });
      const limits = limitsOf(parsePolicy(document));
      const read = Object.entries(limits).map(([key, slots]) => [parseLimiter(key), slots]);
      expect(read).toContainEqual([{ kind: 'policy', policy }, most]);
      for (const [key, slots] of Object.entries(caps)) {
        expect(read).toContainEqual([{ kind: 'label', policy, label: key }, slots]);
      }
      expect(read).toHaveLength(Object.keys(caps).length + 1);
    }),
  );
});

test('the version is that of the content: key order does not change it, any value does', () => {
  const reordered: unknown = JSON.parse(
    '{"policy": {"concurrency_scheduler": {"selectors": [{"control_point": "c"}], "max_concurrency": 1,' +
      '"concurrency_limiter": {"max_inflight_duration": "1s"}}, "policy_name": "p"},' +
      '"blueprint": "concurrency-scheduling/base"}',
  );
  const document = (most: number) => ({
    blueprint: 'concurrency-scheduling/base',
    policy: {
      policy_name: 'p',
      concurrency_scheduler: {
        max_concurrency: most,
        concurrency_limiter: { max_inflight_duration: '1s' },
        selectors: [{ control_point: 'c' }],
      },
    },
  });
  expect(parsePolicy(document(1)).version).toBe(parsePolicy(reordered).version);
  expect(parsePolicy(document(2)).version).not.toBe(parsePolicy(reordered).version);
});

test('a policy is frozen and keeps its own copy of the document', () => {
  const document = values();
  const policy = parsePolicy(document);
  expect(policy.document).toEqual(document);
  expect(policy.document).not.toBe(document);
  expect(Object.isFrozen(document)).toBe(false);
  expect(() => Object.assign(policy.selectors, { deniedStatus: 500 })).toThrow(TypeError);
});
