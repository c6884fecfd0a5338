/** Every field of every blueprint: honoured, or accepted and ignored; and what is refused in it. */
import { describe, expect, test } from 'vitest';
import { parse as parseYaml } from 'yaml';
import { isMapping } from '../../src/document.ts';
import { parsePolicy } from '../../src/policy/index.ts';
import { valuesSchemas } from '../../src/policy/schema.ts';
import { problemsIn, quotaValues, rateValues, values } from './support.ts';

type Fields = Readonly<Record<string, unknown>>;

interface Row {
  /** A value that is right, other than the one in the small document. */
  readonly right: unknown;
  /** What the policy says because of it; absent for a field that has no meaning here. */
  readonly gives?: Fields;
  readonly wrong: readonly unknown[];
}

const wrongTexts = ['', 5, 'a\nb', {}];
const wrongTimes = ['', '5', '-5s', '1 s', 5, '1000000h'];
const wrongCounts = [-1, 0.5, '5', 1e9, Number.NaN, Number.POSITIVE_INFINITY];
const wrongTokens = [0, -1, '5', 1e8, Number.NaN, Number.POSITIVE_INFINITY];
const wrongStatus = [200, 399, 600, '429', 429.5];

function under(path: string, rows: Readonly<Record<string, Row>>): Record<string, Row> {
  return Object.fromEntries(Object.entries(rows).map(([key, row]) => [`${path}.${key}`, row]));
}

const matcher = { match_labels: { tier: 'paid' } };
const readMatcher = { matchLabels: { tier: 'paid' }, matchList: [] };

const headRows: Record<string, Row> = {
  uri: { right: 'github.com/fluxninja/aperture/blueprints@latest', wrong: wrongTexts },
  'policy.policy_name': { right: 'v1.2', gives: { name: 'v1.2' }, wrong: ['', '-a', 'a/b', 5] },
  'policy.components': { right: [], wrong: [[{}], {}] },
  'policy.resources.flow_control.classifiers': { right: [], wrong: [[{}], {}] },
  'policy.resources.flow_control.flux_meters': { right: {}, wrong: [{ a: {} }, []] },
  'policy.resources.infra_meters': { right: {}, wrong: [{ a: {} }, []] },
};

const blockRows: Record<string, Row> = {
  'selectors.0.control_point': {
    right: 'other',
    gives: { selectors: [{ controlPoint: 'other' }] },
    wrong: wrongTexts,
  },
  'selectors.0.agent_group': { right: 'default', wrong: wrongTexts },
  'selectors.0.service': { right: 'any', wrong: ['web', '', 5] },
  'selectors.0.label_matcher': {
    right: matcher,
    gives: { selectors: [{ controlPoint: 'mistral-prompt', matcher: readMatcher }] },
    wrong: [[], { match: {} }, { match_labels: { tier: 5 } }],
  },
  'alerter.alert_name': { right: 'slow', wrong: wrongTexts },
  'alerter.severity': { right: 'warn', wrong: ['loud', 5] },
  'alerter.resolve_timeout': { right: '5m', wrong: wrongTimes },
  'alerter.alert_channels': { right: ['pager'], wrong: ['pager', [5]] },
  'alerter.labels': { right: { team: 'a' }, wrong: [{ team: 5 }, []] },
};

function parameterRows(gives: (parameters: Fields) => Fields): Record<string, Row> {
  return {
    priority: { right: 2.5, gives: gives({ priority: 2.5 }), wrong: [0, -1, '5', 1001] },
    tokens: { right: 7, gives: gives({ tokens: 7 }), wrong: wrongCounts },
    queue_timeout: {
      right: '1m30s',
      gives: gives({ queueTimeoutMs: 90_000 }),
      wrong: [...wrongTimes, '25h'],
    },
    max_queue_length: { right: 0, gives: gives({ maxQueueLength: 0 }), wrong: wrongCounts },
  };
}

function labelRow(field: string): Row {
  return { right: 'a.b', gives: { scheduler: { [field]: 'a.b' } }, wrong: wrongTexts };
}

const schedulerRows: Record<string, Row> = {
  ...under(
    'default_workload_parameters',
    parameterRows((parameters) => ({ scheduler: { default: parameters } })),
  ),
  'workloads.0.name': {
    right: 'paid',
    gives: { scheduler: { workloads: [{ name: 'paid' }] } },
    wrong: wrongTexts,
  },
  'workloads.0.label_matcher': {
    right: matcher,
    gives: { scheduler: { workloads: [{ matcher: readMatcher }] } },
    wrong: [[], { match: {} }],
  },
  ...under(
    'workloads.0.parameters',
    parameterRows((parameters) => ({ scheduler: { workloads: [{ parameters }] } })),
  ),
  priority_label_key: labelRow('priorityLabelKey'),
  tokens_label_key: labelRow('tokensLabelKey'),
  workload_label_key: labelRow('workloadLabelKey'),
  fairness_label_key: labelRow('fairnessLabelKey'),
  decision_deadline_margin: {
    right: '0.5s',
    gives: { scheduler: { deadlineMarginMs: 500 } },
    wrong: [...wrongTimes, '61s'],
  },
  denied_response_status_code: {
    right: 429,
    gives: { scheduler: { deniedStatus: 429 } },
    wrong: wrongStatus,
  },
  max_queue_length: {
    right: 1_000_000,
    gives: { scheduler: { maxQueueLength: 1_000_000 } },
    wrong: [...wrongCounts, 1_000_001],
  },
};

const limitByRow: Row = {
  right: 'user_id',
  gives: { limitByLabelKey: 'user_id' },
  wrong: wrongTexts,
};
const idleRow: Row = { right: '7200s', wrong: wrongTimes };

const bucketRows: Record<string, Row> = {
  bucket_capacity: {
    right: 1.5,
    gives: { bucket: { capacity: 1.5 } },
    wrong: [0.5, ...wrongTokens],
  },
  fill_amount: {
    right: 0.125,
    gives: { bucket: { fillAmount: 0.125 } },
    wrong: [0.0001, ...wrongTokens],
  },
};

const rateLimiterRows: Record<string, Row> = {
  interval: {
    right: '24h',
    gives: { bucket: { intervalMs: 86_400_000 } },
    wrong: [...wrongTimes, '0s', '24h1ms'],
  },
  limit_by_label_key: limitByRow,
  label_key: limitByRow,
  continuous_fill: { right: false, gives: { bucket: { continuous: false } }, wrong: ['no', 0] },
  delay_initial_fill: {
    right: true,
    gives: { bucket: { delayInitialFill: true } },
    wrong: ['yes', 1],
  },
  max_idle_time: idleRow,
  'lazy_sync.enabled': { right: true, wrong: ['yes', 1] },
  'lazy_sync.num_sync': { right: 4, wrong: wrongCounts },
};

const inWords = ['load-scheduling/base', 'concurrency-limiting/base', '', 5];
const scheduler = { workloads: [{ label_matcher: {} }] };

/** The small document of each blueprint, and its rows. */
const blueprints: Record<keyof typeof valuesSchemas, [unknown, Record<string, Row>]> = {
  concurrency_scheduler: [
    values({ scheduler }),
    {
      blueprint: { right: 'concurrency-scheduling/base', wrong: inWords },
      ...headRows,
      ...under('policy.concurrency_scheduler', {
        ...blockRows,
        ...under('scheduler', schedulerRows),
        max_concurrency: { right: 9, gives: { maxConcurrency: 9 }, wrong: [0, ...wrongCounts] },
        'concurrency_limiter.max_inflight_duration': {
          right: '2m',
          gives: { maxInflightMs: 120_000 },
          wrong: [...wrongTimes, '0s'],
        },
        'concurrency_limiter.max_idle_time': idleRow,
        'concurrency_limiter.limit_by_label_key': limitByRow,
        'concurrency_limiter.per_label': {
          right: { user_id: 2 },
          gives: { perLabel: { user_id: 2 } },
          wrong: [[], { user_id: 0 }, { '': 1 }, { user_id: '2' }],
        },
      }),
    },
  ],
  quota_scheduler: [
    quotaValues({ scheduler }),
    {
      blueprint: { right: 'quota-scheduling/base', wrong: inWords },
      ...headRows,
      ...under('policy.quota_scheduler', {
        ...blockRows,
        ...bucketRows,
        ...under('rate_limiter', rateLimiterRows),
        ...under('scheduler', schedulerRows),
      }),
    },
  ],
  rate_limiter: [
    rateValues(),
    {
      blueprint: { right: 'rate-limiting/base', wrong: inWords },
      ...headRows,
      ...under('policy.rate_limiter', {
        ...blockRows,
        ...bucketRows,
        ...under('parameters', rateLimiterRows),
        'request_parameters.tokens_label_key': {
          right: 'tokens',
          gives: { tokensLabelKey: 'tokens' },
          wrong: wrongTexts,
        },
        'request_parameters.denied_response_status_code': {
          right: 503,
          gives: { deniedStatus: 503 },
          wrong: wrongStatus,
        },
      }),
    },
  ],
};

const required: Record<keyof typeof valuesSchemas, readonly string[]> = {
  concurrency_scheduler: ['max_concurrency', 'selectors', 'concurrency_limiter'],
  quota_scheduler: ['bucket_capacity', 'fill_amount', 'selectors', 'rate_limiter'],
  rate_limiter: ['bucket_capacity', 'fill_amount', 'selectors', 'parameters'],
};

/** The value with another at the path; mappings on the way are made. */
function changed(value: unknown, path: readonly string[], to: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return to;
  if (Array.isArray(value)) return value.with(Number(key), changed(value[Number(key)], rest, to));
  const fields = isMapping(value) ? value : {};
  return { ...fields, [key]: changed(fields[key], rest, to) };
}

/** The paths of a schema's fields, down to matchers, lists of texts and mappings of any keys. */
function fieldsOf(schema: unknown, path: string): string[] {
  if (!isMapping(schema) || path.endsWith('label_matcher')) return [path];
  const inner = (key: string) => (path === '' ? key : `${path}.${key}`);
  if (isMapping(schema.properties)) {
    return Object.entries(schema.properties).flatMap(([key, field]) => fieldsOf(field, inner(key)));
  }
  const isListOfMappings = isMapping(schema.items) && isMapping(schema.items.properties);
  return isListOfMappings ? fieldsOf(schema.items, inner('0')) : [path];
}

/** What a policy says, without what tells documents apart. */
function said(document: unknown): object {
  const {
    version: _version,
    structure: _structure,
    document: _document,
    ...rest
  } = parsePolicy(document);
  return rest;
}

describe.each(['concurrency_scheduler', 'quota_scheduler', 'rate_limiter'] as const)(
  '%s',
  (block) => {
    const [small, rows] = blueprints[block];

    test('every field has a row', () => {
      expect(Object.keys(rows).toSorted()).toEqual(fieldsOf(valuesSchemas[block], '').toSorted());
    });

    test.each(Object.entries(rows))('%s', (path, { right, gives, wrong }) => {
      const keys = path.split('.');
      const policy = said(changed(small, keys, right));
      if (gives === undefined) expect(policy).toEqual(said(small));
      else {
        expect(policy).toMatchObject(gives);
        expect(said(small)).not.toMatchObject(gives);
      }
      const at = path.replaceAll(/\.(\d+)/g, '[$1]');
      for (const value of [null, ...wrong]) {
        const problems = Object.entries(problemsIn(changed(small, keys, value)));
        expect(problems.length).toBeGreaterThan(0);
        for (const [where, reason] of problems) {
          expect(where.slice(0, at.length)).toBe(at);
          expect(reason).toMatch(/^(must be|is not a (field|name))/);
          expect(reason.length).toBeLessThan(300);
        }
      }
    });

    test('what is required is missed, what is not known is refused, and both are named', () => {
      for (const field of required[block]) {
        const found = problemsIn({
          ...(small as Fields),
          policy: { policy_name: 'p', [block]: without(small, block, field) },
        });
        expect(Object.keys(found)).toEqual([`policy.${block}.${field}`]);
        expect(Object.values(found)[0]).toMatch(/^is missing; it must be/);
      }
      const unknown = problemsIn(changed(small, ['policy', block, 'per_labels'], {}));
      expect(unknown[`policy.${block}.per_labels`]).toMatch(/^is not a field/);
    });
  },
);

function without(document: unknown, block: string, field: string): Fields {
  const { [block]: fields } = (document as { policy: Record<string, Fields> }).policy;
  const { [field]: _dropped, ...rest } = fields ?? {};
  return rest;
}

test("Aperture's own examples of quotas and rate limits are read as they are", () => {
  const quota = parsePolicy(
    parseYaml(`
blueprint: quota-scheduling/base
uri: github.com/fluxninja/aperture/blueprints@latest
policy:
  policy_name: quota-scheduling-test
  components: []
  resources: {flow_control: {classifiers: []}}
  quota_scheduler:
    bucket_capacity: 500
    fill_amount: 25
    rate_limiter: {interval: 60s, label_key: api_key, max_idle_time: 7200s, lazy_sync: {enabled: true, num_sync: 4}}
    scheduler: {priority_label_key: priority, workload_label_key: workload}
    selectors: [{control_point: mistral-prompt, agent_group: default, service: any}]
`),
  );
  expect(quota).toMatchObject({
    kind: 'quota',
    name: 'quota-scheduling-test',
    limitByLabelKey: 'api_key',
    bucket: {
      capacity: 500,
      fillAmount: 25,
      intervalMs: 60_000,
      continuous: true,
      delayInitialFill: false,
    },
    scheduler: { priorityLabelKey: 'priority', workloads: [], default: { priority: 1 } },
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
    bucket: {
      capacity: 2,
      fillAmount: 2,
      intervalMs: 30_000,
      continuous: false,
      delayInitialFill: true,
    },
  });
});

test('fields that exclude each other, and blocks of another blueprint, are refused with the reason', () => {
  const both = { limit_by_label_key: 'a', label_key: 'a' };
  expect(problemsIn(quotaValues({ limiter: both }))).toEqual({
    'policy.quota_scheduler.rate_limiter.label_key':
      'is the old name of limit_by_label_key, which is given too; keep one of the two',
  });
  expect(Object.keys(problemsIn(rateValues({ limiter: both })))).toEqual([
    'policy.rate_limiter.parameters.label_key',
  ]);
  expect(problemsIn({ ...(rateValues() as object), blueprint: 'quota-scheduling/base' })).toEqual({
    'policy.rate_limiter': expect.stringContaining('resources, quota_scheduler'),
    'policy.quota_scheduler': 'is missing; it must be a mapping',
  });
  const odd = { ...(quotaValues({ block: { fill_amount: 0 } }) as object), blueprint: 'quota' };
  expect(Object.keys(problemsIn(odd))).toEqual(['blueprint', 'policy.quota_scheduler.fill_amount']);
});

test('a bucket that would not fill within a hundred years is refused', () => {
  const slow = { bucket_capacity: 10_000_000, fill_amount: 0.001 };
  const reason = 'is too little: an empty bucket would take more than 100 years to fill';
  const limiter = { interval: '24h' };
  expect(problemsIn(quotaValues({ block: slow, limiter }))).toEqual({
    'policy.quota_scheduler.fill_amount': reason,
  });
  expect(problemsIn(rateValues({ block: slow, limiter }))).toEqual({
    'policy.rate_limiter.fill_amount': reason,
  });
  const years = { bucket_capacity: 36_500, fill_amount: 1 };
  expect(parsePolicy(rateValues({ block: years, limiter })).kind).toBe('rate');
});
