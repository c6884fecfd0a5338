/**
 * A row for every field of every form of a policy: a right value and what the policy says because of
 * it, and wrong values.
 */
import { flatSchema, valuesSchemas } from '../../src/policy/schema.ts';
import { flatValues, limitValues, quotaValues, rateValues, values } from './support.ts';

type Fields = Readonly<Record<string, unknown>>;

export interface Row {
  /** A value that is right, other than the one in the small document. */
  readonly right: unknown;
  /** What the policy says because of it; absent for a field that has no meaning here. */
  readonly gives?: Fields;
  /** A text that is right where a number is, too; the table names it. */
  readonly word?: { readonly right: string; readonly gives: Fields };
  /** There is no other right value. */
  readonly isOnly?: true;
  /** Anything in it is refused: Aperture has it and Sluice has not. */
  readonly isRefused?: true;
  readonly wrong: readonly unknown[];
}

const wrongTexts = ['', 5, 'a\nb', {}];
const wrongKeys = ['x'.repeat(129), 5, 'a\nb', {}];
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
  'policy.components': { right: [], isRefused: true, wrong: [[{}], {}] },
  'policy.resources.flow_control.classifiers': { right: [], isRefused: true, wrong: [[{}], {}] },
  'policy.resources.flow_control.flux_meters': {
    right: {},
    isRefused: true,
    wrong: [{ a: {} }, []],
  },
  'policy.resources.infra_meters': { right: {}, isRefused: true, wrong: [{ a: {} }, []] },
};

const blockRows: Record<string, Row> = {
  'selectors.0.control_point': {
    right: 'other',
    gives: { selectors: [{ controlPoint: 'other' }] },
    wrong: wrongTexts,
  },
  'selectors.0.agent_group': { right: 'default', wrong: wrongTexts },
  'selectors.0.service': { right: 'web', wrong: wrongTexts },
  'selectors.0.label_matcher': {
    right: matcher,
    gives: { selectors: [{ controlPoint: 'mistral-prompt', matcher: readMatcher }] },
    wrong: [[], { match: {} }, { match_labels: { tier: 5 } }],
  },
  'alerter.alert_name': { right: 'slow', gives: { alerter: { name: 'slow' } }, wrong: wrongTexts },
  'alerter.severity': {
    right: 'warn',
    gives: { alerter: { severity: 'warn' } },
    wrong: ['loud', 5],
  },
  'alerter.resolve_timeout': {
    right: '5m',
    gives: { alerter: { resolveMs: 300_000 } },
    wrong: wrongTimes,
  },
  'alerter.alert_channels': { right: ['pager'], wrong: ['pager', [5]] },
  'alerter.labels': {
    right: { team: 'a' },
    gives: { alerter: { labels: { team: 'a' } } },
    wrong: [{ team: 5 }, []],
  },
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
  return { right: 'a.b', gives: { scheduler: { [field]: 'a.b' } }, wrong: wrongKeys };
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
  wrong: wrongKeys,
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

const maxConcurrencyRow: Row = {
  right: 9,
  gives: { maxConcurrency: 9 },
  word: { right: 'auto', gives: { maxConcurrency: 'auto' } },
  wrong: [0, ...wrongCounts, 'AUTO', 'automatic', '', ['auto']],
};
const maxInflightRow: Row = {
  right: '2m',
  gives: { maxInflightMs: 120_000 },
  wrong: [...wrongTimes, '0s'],
};

const slotRows: Record<string, Row> = {
  max_inflight_duration: maxInflightRow,
  max_idle_time: idleRow,
  limit_by_label_key: limitByRow,
  per_label: {
    right: { user_id: 2 },
    gives: { perLabel: { user_id: 2 } },
    wrong: [[], { user_id: 0 }, { '': 1 }, { user_id: '2' }, { user_id: 'auto' }, 'auto'],
  },
};

const deniedRow: Row = { right: 503, gives: { deniedStatus: 503 }, wrong: wrongStatus };

const scheduler = { workloads: [{ label_matcher: {} }] };

/** So that a field of it changes nothing but what it says. */
const block = { alerter: {} };

function blueprintRow(name: string, kind: string): Row {
  const wrong = ['load-scheduling/base', 'concurrency', '', 5];
  return { right: `${name}/base`, gives: { kind }, isOnly: true, wrong };
}

/** A form that a policy may have. */
export interface Form {
  readonly schema: unknown;
  /** A small document, over which each row's value is laid. */
  readonly small: unknown;
  readonly rows: Readonly<Record<string, Row>>;
  /** Where the fields stand that are required. */
  readonly block: string;
  readonly required: readonly string[];
}

/** The values file of each blueprint, by the name of its block, and the flat form. */
export const forms = {
  concurrency_scheduler: {
    schema: valuesSchemas.concurrency_scheduler,
    small: values({ scheduler, block }),
    rows: {
      blueprint: blueprintRow('concurrency-scheduling', 'concurrency'),
      ...headRows,
      ...under('policy.concurrency_scheduler', {
        ...blockRows,
        max_concurrency: maxConcurrencyRow,
        ...under('scheduler', schedulerRows),
        ...under('concurrency_limiter', slotRows),
      }),
    },
    block: 'policy.concurrency_scheduler',
    required: ['max_concurrency', 'selectors', 'concurrency_limiter'],
  },
  concurrency_limiter: {
    schema: valuesSchemas.concurrency_limiter,
    small: limitValues({ block }),
    rows: {
      blueprint: blueprintRow('concurrency-limiting', 'limit'),
      ...headRows,
      ...under('policy.concurrency_limiter', {
        ...blockRows,
        max_concurrency: maxConcurrencyRow,
        ...under('parameters', slotRows),
        'request_parameters.tokens_label_key': { right: 'tokens', wrong: wrongKeys },
        'request_parameters.denied_response_status_code': deniedRow,
      }),
    },
    block: 'policy.concurrency_limiter',
    required: ['max_concurrency', 'selectors', 'parameters'],
  },
  quota_scheduler: {
    schema: valuesSchemas.quota_scheduler,
    small: quotaValues({ scheduler, block }),
    rows: {
      blueprint: blueprintRow('quota-scheduling', 'quota'),
      ...headRows,
      ...under('policy.quota_scheduler', {
        ...blockRows,
        ...bucketRows,
        ...under('rate_limiter', rateLimiterRows),
        ...under('scheduler', schedulerRows),
      }),
    },
    block: 'policy.quota_scheduler',
    required: ['bucket_capacity', 'fill_amount', 'selectors', 'rate_limiter'],
  },
  rate_limiter: {
    schema: valuesSchemas.rate_limiter,
    small: rateValues({ block }),
    rows: {
      blueprint: blueprintRow('rate-limiting', 'rate'),
      ...headRows,
      ...under('policy.rate_limiter', {
        ...blockRows,
        ...bucketRows,
        ...under('parameters', rateLimiterRows),
        'request_parameters.tokens_label_key': {
          right: 'tokens',
          gives: { tokensLabelKey: 'tokens' },
          wrong: wrongKeys,
        },
        'request_parameters.denied_response_status_code': deniedRow,
      }),
    },
    block: 'policy.rate_limiter',
    required: ['bucket_capacity', 'fill_amount', 'selectors', 'parameters'],
  },
  flat: {
    schema: flatSchema,
    small: flatValues(),
    rows: {
      policy_name: { right: 'v1.2', gives: { name: 'v1.2' }, wrong: ['', '-a', 'a/b', 5] },
      limit_by_label_key: limitByRow,
      max_inflight_duration: maxInflightRow,
      max_concurrency: maxConcurrencyRow,
      priority_label_key: labelRow('priorityLabelKey'),
      tokens_label_key: labelRow('tokensLabelKey'),
      workload_label_key: labelRow('workloadLabelKey'),
      control_point: {
        right: 'other',
        gives: { selectors: [{ controlPoint: 'other' }] },
        wrong: wrongTexts,
      },
    },
    block: '',
    required: ['policy_name', 'max_inflight_duration', 'max_concurrency', 'control_point'],
  },
} satisfies Record<keyof typeof valuesSchemas | 'flat', Form>;
