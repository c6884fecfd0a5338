/**
 * The shapes of a policy: Aperture's values files for the four blueprints whose names are below, and
 * the flat form of its Cloud.
 */
import Type, { type Static, type TProperties } from 'typebox';
import { Check } from 'typebox/value';
import { isMapping, join, type Problem, parseDuration } from '../document.ts';
import {
  alerter,
  bucketCapacity,
  concurrencyLimiter,
  controlPoint,
  fillAmount,
  fillInterval,
  head,
  maxConcurrency,
  maxInflight,
  optionalLabelKey,
  policyName,
  rateLimiter,
  requestParameters,
  scheduler,
  selectors,
  uri,
  yearMs,
} from './parts.ts';

/** The longest an empty bucket may take to fill: times stay far within what Lua counts exactly. */
const fillMs = 100 * yearMs;

/** A values file: its blueprint, and beside the policy's head the one block of that blueprint. */
function values<Name extends string, Block extends TProperties>(name: Name, block: Block) {
  const expect =
    '`concurrency-scheduling/base`, `concurrency-limiting/base`, `quota-scheduling/base` or ' +
    '`rate-limiting/base`, the blueprints that Sluice reads';
  return Type.Object({
    blueprint: Type.Enum([name], { expect }),
    uri,
    policy: Type.Object({ ...head, ...block }),
  });
}

/** The whole values file of each blueprint, by the name of its block. */
export const valuesSchemas = {
  concurrency_scheduler: values('concurrency-scheduling/base', {
    concurrency_scheduler: Type.Object(
      {
        max_concurrency: maxConcurrency,
        selectors,
        concurrency_limiter: concurrencyLimiter,
        scheduler: Type.Optional(scheduler),
        alerter: Type.Optional(alerter),
      },
      { judge: judgeAuto('concurrency_limiter') },
    ),
  }),
  concurrency_limiter: values('concurrency-limiting/base', {
    concurrency_limiter: Type.Object(
      {
        max_concurrency: maxConcurrency,
        selectors,
        parameters: concurrencyLimiter,
        request_parameters: Type.Optional(requestParameters),
        alerter: Type.Optional(alerter),
      },
      { judge: judgeAuto('parameters') },
    ),
  }),
  quota_scheduler: values('quota-scheduling/base', {
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
  rate_limiter: values('rate-limiting/base', {
    rate_limiter: Type.Object(
      {
        bucket_capacity: bucketCapacity,
        fill_amount: fillAmount,
        selectors,
        parameters: rateLimiter,
        request_parameters: Type.Optional(requestParameters),
        alerter: Type.Optional(alerter),
      },
      { judge: judgeFillTime('parameters') },
    ),
  }),
};

/** A values file that its schema has let pass. */
export type Values = Static<(typeof valuesSchemas)[keyof typeof valuesSchemas]>;

/** The form of Aperture's Cloud: what it asks for of a concurrency scheduler, without the nesting. */
export const flatSchema = Type.Object(
  {
    policy_name: policyName,
    limit_by_label_key: optionalLabelKey,
    max_inflight_duration: maxInflight,
    max_concurrency: maxConcurrency,
    priority_label_key: optionalLabelKey,
    tokens_label_key: optionalLabelKey,
    workload_label_key: optionalLabelKey,
    control_point: controlPoint,
  },
  { judge: judgeAuto() },
);

/**
 * The schema to judge a values file by: that of its blueprint. One whose blueprint is not known is
 * judged by the block it has, so that all its problems are named at once.
 */
export function schemaFor(document: unknown) {
  const { blueprint: name, policy } = isMapping(document) ? document : {};
  const known = Object.values(valuesSchemas).find(({ properties }) =>
    properties.blueprint.enum.some((own) => own === name),
  );
  if (known !== undefined) return known;
  const ofBlock = Object.entries(valuesSchemas).find(
    ([block]) => isMapping(policy) && policy[block] !== undefined,
  );
  return ofBlock?.[1] ?? valuesSchemas.concurrency_scheduler;
}

/** `auto` is one limit for all: where `limiter` names a label, only a number can hold for each value. */
function judgeAuto(limiter?: 'concurrency_limiter' | 'parameters') {
  return (given: unknown, path: string, problems: Problem[]): void => {
    if (!isMapping(given) || given.max_concurrency !== 'auto') return;
    const block = limiter === undefined ? given : given[limiter];
    const key = isMapping(block) ? block.limit_by_label_key : undefined;
    if (typeof key !== 'string' || key === '') return;
    const reason =
      'must be a number: with limit_by_label_key it holds for each value of that label, and `auto` is one limit for all';
    problems.push({ path: join(path, 'max_concurrency'), reason });
  };
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
