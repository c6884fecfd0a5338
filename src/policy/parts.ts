/**
 * What the blueprints' shapes are made of, field by field as in Aperture's; every count and length
 * has a limit. Sluice's own, which Aperture refuses as unknown, are `per_label` of a concurrency
 * limiter, `max_queue_length` of a scheduler and of a workload's parameters, and the text `auto` as
 * `max_concurrency`.
 */
import Type, { type Static } from 'typebox';
import { duration, isMapping, isPrintable, join, type Problem, text } from '../document.ts';
import { labelKeyMost, labelMatcherSchema } from './match.ts';

/** The weights a request may have in the fair order; beyond them tags lose their precision. */
export const priorityRange = { least: 0.1, most: 1000 } as const;

/** The cost a request may have in the fair order, in tokens. */
export const tokensRange = { least: 1, most: 10_000_000 } as const;

const dayMs = 24 * 3_600_000;

export const yearMs = 365 * dayMs;

const slots = Type.Integer({ minimum: 1, maximum: 1_000_000 });

/** `auto`, which is Sluice's own: as many as the pools take. */
export const maxConcurrency = Type.Union([slots, Type.Literal('auto')], {
  expect: 'a whole number from 1 to 1000000, or `auto` for what the pools take',
});

/** Requests that may wait; with 0 what cannot run at once is refused. */
const queueLength = Type.Integer({ minimum: 0, maximum: 1_000_000 });

const httpStatus = Type.Integer({ minimum: 400, maximum: 599 });

/** Of fields that have no meaning here. */
const ignoredTime = duration(0, 366 * dayMs);

/** The empty text stands for none: files that Aperture's tools generate have it. */
export const optionalLabelKey = Type.Optional(
  Type.Refine(
    Type.String({
      expect: `a label key of 1 to ${labelKeyMost} characters without control characters, or "" for none`,
    }),
    (value) => value.length <= labelKeyMost && isPrintable(value),
  ),
);

const workloadParameters = Type.Object({
  priority: Type.Optional(
    Type.Number({ minimum: priorityRange.least, maximum: priorityRange.most }),
  ),
  tokens: Type.Optional(Type.Integer({ minimum: 0, maximum: tokensRange.most })),
  queue_timeout: Type.Optional(duration(1, dayMs)),
  max_queue_length: Type.Optional(queueLength),
});

const workload = Type.Object({
  name: Type.Optional(text(128)),
  label_matcher: labelMatcherSchema,
  parameters: Type.Optional(workloadParameters),
});

export const scheduler = Type.Object({
  workloads: Type.Optional(Type.Array(workload, { maxItems: 256 })),
  default_workload_parameters: Type.Optional(workloadParameters),
  priority_label_key: optionalLabelKey,
  tokens_label_key: optionalLabelKey,
  workload_label_key: optionalLabelKey,
  fairness_label_key: optionalLabelKey,
  decision_deadline_margin: Type.Optional(duration(0, 60_000)),
  denied_response_status_code: Type.Optional(httpStatus),
  max_queue_length: Type.Optional(queueLength),
});

export const controlPoint = text(128);

const selector = Type.Object({
  control_point: controlPoint,
  agent_group: Type.Optional(text(256)),
  service: Type.Optional(text(256)),
  label_matcher: Type.Optional(labelMatcherSchema),
});

export const selectors = Type.Array(selector, { minItems: 1, maxItems: 256 });

export const maxInflight = duration(1, 7 * dayMs);

export const concurrencyLimiter = Type.Object(
  {
    max_inflight_duration: maxInflight,
    max_idle_time: Type.Optional(ignoredTime),
    limit_by_label_key: optionalLabelKey,
    per_label: Type.Optional(
      Type.Record(Type.String({ pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]{1,128}$' }), slots, {
        maxProperties: 16,
        expectKey: 'a label key of 1 to 128 characters without control characters',
      }),
    ),
  },
  { judge: judgeLimits },
);

export const fillInterval = duration(1, dayMs);

export const rateLimiter = Type.Object(
  {
    interval: fillInterval,
    limit_by_label_key: optionalLabelKey,
    label_key: optionalLabelKey,
    continuous_fill: Type.Optional(Type.Boolean()),
    delay_initial_fill: Type.Optional(Type.Boolean()),
    max_idle_time: Type.Optional(ignoredTime),
    lazy_sync: Type.Optional(
      Type.Object({
        enabled: Type.Optional(Type.Boolean()),
        num_sync: Type.Optional(Type.Integer({ minimum: 0, maximum: 1_000_000 })),
      }),
    ),
  },
  { judge: judgeLabelKeys },
);

/** Of limiters that refuse. */
export const requestParameters = Type.Object({
  tokens_label_key: optionalLabelKey,
  denied_response_status_code: Type.Optional(httpStatus),
});

export const bucketCapacity = Type.Number({ minimum: 1, maximum: tokensRange.most });
export const fillAmount = Type.Number({ minimum: 0.001, maximum: tokensRange.most });

export const alerter = Type.Object({
  alert_name: Type.Optional(text(256)),
  severity: Type.Optional(Type.Enum(['info', 'warn', 'crit'])),
  resolve_timeout: Type.Optional(duration(0, 366 * dayMs)),
  alert_channels: Type.Optional(Type.Array(text(256), { maxItems: 64 })),
  labels: Type.Optional(Type.Record(Type.String(), Type.String(), { maxProperties: 64 })),
});

/** A list or mapping of Aperture's that Sluice has no use for: accepted while there is nothing in it. */
const noList = (what: string) =>
  Type.Array(Type.Unknown(), { maxItems: 0, expect: `an empty list: Sluice has no ${what}` });
const noMapping = (what: string) =>
  Type.Record(Type.String(), Type.Unknown(), {
    maxProperties: 0,
    expect: `an empty mapping: Sluice has no ${what}`,
  });

export const uri = Type.Optional(text(1024));

export const policyName = Type.String({
  pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$',
  expect: 'a name of 1 to 128 letters, digits, `_`, `.` or `-` that begins with a letter or digit',
});

/** What stands beside the block of a policy, whatever the blueprint. */
export const head = {
  policy_name: policyName,
  components: Type.Optional(noList('circuit components')),
  resources: Type.Optional(
    Type.Object({
      flow_control: Type.Optional(
        Type.Object({
          classifiers: Type.Optional(noList('classifiers; send the labels with the request')),
          flux_meters: Type.Optional(noMapping('flux meters')),
        }),
      ),
      infra_meters: Type.Optional(noMapping('infra meters')),
    }),
  ),
};

/** Parts of values files that the schema has let pass. */
export type GivenSelectors = Static<typeof selectors>;
export type GivenScheduler = Static<typeof scheduler>;
export type GivenParameters = Static<typeof workloadParameters>;
export type GivenConcurrencyLimiter = Static<typeof concurrencyLimiter>;
export type GivenRateLimiter = Static<typeof rateLimiter>;
export type GivenAlerter = Static<typeof alerter>;

/** One limit for one label, and only labels that can be written in a key. */
function judgeLimits(given: unknown, path: string, problems: Problem[]): void {
  if (!isMapping(given) || !isMapping(given.per_label)) return;
  for (const key of Object.keys(given.per_label)) {
    const at = join(join(path, 'per_label'), key);
    if (key === given.limit_by_label_key) {
      const reason = 'is limited by limit_by_label_key already; keep one of the two';
      problems.push({ path: at, reason });
    }
    if (!key.isWellFormed()) {
      problems.push({ path: at, reason: 'is not a name allowed here: it is not valid Unicode' });
    }
  }
}

/** `label_key` is the old name of `limit_by_label_key`: two names of one field may not differ. */
function judgeLabelKeys(given: unknown, path: string, problems: Problem[]): void {
  if (!isMapping(given)) return;
  const { label_key: old = '', limit_by_label_key: key = '' } = given;
  if (old === '' || key === '') return;
  const reason = 'is the old name of limit_by_label_key, which is given too; keep one of the two';
  problems.push({ path: join(path, 'label_key'), reason });
}
