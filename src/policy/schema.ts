/**
 * The shape of a policy: Aperture's values file for the blueprint `concurrency-scheduling/base`,
 * with Sluice's own `per_label`. Field by field as in Aperture's blueprint; every count and length
 * has a limit.
 */
import Type from 'typebox';
import { duration, isMapping, join, type Problem, text } from '../document.ts';
import { labelKey, labelMatcherSchema } from './match.ts';

/** The weights a request may have in the fair order; beyond them tags lose their precision. */
export const priorityRange = { least: 0.1, most: 1000 } as const;

/** The cost a request may have in the fair order, in tokens. */
export const tokensRange = { least: 1, most: 10_000_000 } as const;

const dayMs = 24 * 3_600_000;

const slots = Type.Integer({ minimum: 1, maximum: 1_000_000 });

const workloadParameters = Type.Object({
  priority: Type.Optional(
    Type.Number({ minimum: priorityRange.least, maximum: priorityRange.most }),
  ),
  tokens: Type.Optional(Type.Integer({ minimum: 0, maximum: tokensRange.most })),
  queue_timeout: Type.Optional(duration(1, dayMs)),
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
  denied_response_status_code: Type.Optional(Type.Integer({ minimum: 400, maximum: 599 })),
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
    max_idle_time: Type.Optional(duration(0, 366 * dayMs)),
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

const alerter = Type.Object({
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

/** The whole values file. */
export const valuesSchema = Type.Object({
  blueprint: Type.Enum(['concurrency-scheduling/base'], {
    expect: '`concurrency-scheduling/base`, the blueprint that Sluice reads',
  }),
  uri: Type.Optional(text(1024)),
  policy: Type.Object({
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
    concurrency_scheduler: Type.Object({
      max_concurrency: slots,
      selectors: Type.Array(selector, { minItems: 1, maxItems: 256 }),
      concurrency_limiter: concurrencyLimiter,
      scheduler: Type.Optional(scheduler),
      alerter: Type.Optional(alerter),
    }),
  }),
});

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
