/**
 * The shapes of a policy: Aperture's values files for the blueprints `concurrency-scheduling/base`,
 * `quota-scheduling/base` and `rate-limiting/base`, field by field as in Aperture's; every count and
 * length has a limit. Sluice's own, which Aperture refuses as unknown, are `per_label` of a
 * concurrency limiter, and `max_queue_length` of a scheduler and of a workload's parameters.
 */
import Type, { type Static } from 'typebox';
import { Check } from 'typebox/value';
import { duration, isMapping, join, type Problem, parseDuration, text } from '../document.ts';
import { labelKey, labelMatcherSchema } from './match.ts';

/** The weights a request may have in the fair order; beyond them tags lose their precision. */
export const priorityRange = { least: 0.1, most: 1000 } as const;

/** The cost a request may have in the fair order, in tokens. */
export const tokensRange = { least: 1, most: 10_000_000 } as const;

const dayMs = 24 * 3_600_000;

const yearMs = 365 * dayMs;

/** The longest an empty bucket may take to fill: times stay far within what Lua counts exactly. */
const fillMs = 100 * yearMs;

const slots = Type.Integer({ minimum: 1, maximum: 1_000_000 });

/** Requests that may wait; with 0 what cannot run at once is refused. */
const queueLength = Type.Integer({ minimum: 0, maximum: 1_000_000 });

const httpStatus = Type.Integer({ minimum: 400, maximum: 599 });

/** Of fields that have no meaning here. */
const ignoredTime = duration(0, 366 * dayMs);

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

const scheduler = Type.Object({
  workloads: Type.Optional(Type.Array(workload, { maxItems: 256 })),
  default_workload_parameters: Type.Optional(workloadParameters),
  priority_label_key: Type.Optional(labelKey),
  tokens_label_key: Type.Optional(labelKey),
  workload_label_key: Type.Optional(labelKey),
  fairness_label_key: Type.Optional(labelKey),
  decision_deadline_margin: Type.Optional(duration(0, 60_000)),
  denied_response_status_code: Type.Optional(httpStatus),
  max_queue_length: Type.Optional(queueLength),
});

const selector = Type.Object({
  control_point: text(128),
  agent_group: Type.Optional(text(256)),
  service: Type.Optional(
    Type.Enum(['any'], { expect: '`any`, or left out: Sluice does not tell services apart' }),
  ),
  label_matcher: Type.Optional(labelMatcherSchema),
});

const concurrencyLimiter = Type.Object(
  {
    max_inflight_duration: duration(1, 7 * dayMs),
    max_idle_time: Type.Optional(ignoredTime),
    limit_by_label_key: Type.Optional(labelKey),
    per_label: Type.Optional(
      Type.Record(Type.String({ pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]{1,128}$' }), slots, {
        maxProperties: 16,
        expectKey: 'a label key of 1 to 128 characters without control characters',
      }),
    ),
  },
  { judge: judgeLimits },
);

const fillInterval = duration(1, dayMs);

const rateLimiter = Type.Object(
  {
    interval: fillInterval,
    limit_by_label_key: Type.Optional(labelKey),
    label_key: Type.Optional(labelKey),
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

const bucketCapacity = Type.Number({ minimum: 1, maximum: tokensRange.most });
const fillAmount = Type.Number({ minimum: 0.001, maximum: tokensRange.most });

const alerter = Type.Object({
  alert_name: Type.Optional(text(256)),
  severity: Type.Optional(Type.Enum(['info', 'warn', 'crit'])),
  resolve_timeout: Type.Optional(ignoredTime),
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

const selectors = Type.Array(selector, { minItems: 1, maxItems: 256 });

const uri = Type.Optional(text(1024));

/** What stands beside the block of a policy, whatever the blueprint. */
const head = {
  policy_name: Type.String({
    pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$',
    expect:
      'a name of 1 to 128 letters, digits, `_`, `.` or `-` that begins with a letter or digit',
  }),
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

const blueprint = <Name extends string>(name: Name) =>
  Type.Enum([name], {
    expect:
      '`concurrency-scheduling/base`, `quota-scheduling/base` or `rate-limiting/base`, the blueprints that Sluice reads',
  });

const concurrencyValues = Type.Object({
  blueprint: blueprint('concurrency-scheduling/base'),
  uri,
  policy: Type.Object({
    ...head,
    concurrency_scheduler: Type.Object({
      max_concurrency: slots,
      selectors,
      concurrency_limiter: concurrencyLimiter,
      scheduler: Type.Optional(scheduler),
      alerter: Type.Optional(alerter),
    }),
  }),
});

const quotaValues = Type.Object({
  blueprint: blueprint('quota-scheduling/base'),
  uri,
  policy: Type.Object({
    ...head,
    quota_scheduler: Type.Object(
      {
        bucket_capacity: bucketCapacity,
        fill_amount: fillAmount,
        selectors,
        rate_limiter: rateLimiter,
        scheduler: Type.Optional(scheduler),
        alerter: Type.Optional(alerter),
      },
      { judge: judgeFillTime('rate_limiter') },
    ),
  }),
});

const rateValues = Type.Object({
  blueprint: blueprint('rate-limiting/base'),
  uri,
  policy: Type.Object({
    ...head,
    rate_limiter: Type.Object(
      {
        bucket_capacity: bucketCapacity,
        fill_amount: fillAmount,
        selectors,
        parameters: rateLimiter,
        request_parameters: Type.Optional(
          Type.Object({
            tokens_label_key: Type.Optional(labelKey),
            denied_response_status_code: Type.Optional(httpStatus),
          }),
        ),
        alerter: Type.Optional(alerter),
      },
      { judge: judgeFillTime('parameters') },
    ),
  }),
});

/** The whole values file of each blueprint, by the name of its block. */
export const valuesSchemas = {
  concurrency_scheduler: concurrencyValues,
  quota_scheduler: quotaValues,
  rate_limiter: rateValues,
};

/**
 * The schema to judge a document by: that of its blueprint. One whose blueprint is not known is
 * judged by the block it has, so that all its problems are named at once.
 */
export function schemaFor(document: unknown) {
  const { blueprint: name, policy } = isMapping(document) ? document : {};
  const known = Object.values(valuesSchemas).find(({ properties }) =>
    properties.blueprint.enum.some((own) => own === name),
  );
  if (known !== undefined) return known;
  if (isMapping(policy) && policy.quota_scheduler !== undefined) return quotaValues;
  if (isMapping(policy) && policy.rate_limiter !== undefined) return rateValues;
  return concurrencyValues;
}

/** Parts of values files that the schema has let pass. */
export type GivenSelectors = Static<typeof selectors>;
export type GivenScheduler = Static<typeof scheduler>;
export type GivenParameters = Static<typeof workloadParameters>;
export type GivenRateLimiter = Static<typeof rateLimiter>;

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
  if (given.label_key === undefined || given.limit_by_label_key === undefined) return;
  const reason = 'is the old name of limit_by_label_key, which is given too; keep one of the two';
  problems.push({ path: join(path, 'label_key'), reason });
}

/** A bucket has to fill in a time that can still be told; asked when its three numbers are right. */
function judgeFillTime(limiter: 'rate_limiter' | 'parameters') {
  return (given: unknown, path: string, problems: Problem[]): void => {
    if (!isMapping(given) || !isMapping(given[limiter])) return;
    const { bucket_capacity: capacity, fill_amount: amount } = given;
    const { interval } = given[limiter];
    if (!Check(bucketCapacity, capacity) || !Check(fillAmount, amount)) return;
    if (!Check(fillInterval, interval)) return;
    if ((capacity / amount) * (parseDuration(interval) ?? 0) <= fillMs) return;
    const reason = `is too little: an empty bucket would take more than ${fillMs / yearMs} years to fill`;
    problems.push({ path: join(path, 'fill_amount'), reason });
  };
}
