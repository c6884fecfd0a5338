/** Values files for the tests of the policy part. */
import { isMapping } from '../../src/document.ts';
import { PolicyError, parsePolicy, type Scheduler } from '../../src/policy/index.ts';

type Fields = Readonly<Record<string, unknown>>;

/** A values file with the given fields laid over a small valid one. */
export function values(
  over: {
    readonly name?: string;
    readonly block?: Fields;
    readonly limiter?: Fields;
    readonly scheduler?: Fields;
  } = {},
): unknown {
  return {
    blueprint: 'concurrency-scheduling/base',
    policy: {
      policy_name: over.name ?? 'mistral',
      concurrency_scheduler: {
        max_concurrency: 4,
        selectors: [{ control_point: 'mistral-prompt' }],
        concurrency_limiter: { max_inflight_duration: '60s', ...over.limiter },
        scheduler: {
          priority_label_key: 'priority',
          tokens_label_key: 'tokens',
          workload_label_key: 'workload',
          fairness_label_key: 'user_id',
          ...over.scheduler,
        },
        ...over.block,
      },
    },
  };
}

/** The same of a concurrency limit that refuses. */
export function limitValues(
  over: { readonly name?: string; readonly block?: Fields; readonly limiter?: Fields } = {},
): unknown {
  return {
    blueprint: 'concurrency-limiting/base',
    policy: {
      policy_name: over.name ?? 'limit',
      concurrency_limiter: {
        max_concurrency: 3,
        selectors: [{ control_point: 'mistral-prompt' }],
        parameters: { max_inflight_duration: '60s', ...over.limiter },
        ...over.block,
      },
    },
  };
}

/** The flat form, with the given fields laid over those that are required. */
export function flatValues(over: Fields = {}): Fields {
  return {
    policy_name: 'flat',
    max_inflight_duration: '60s',
    max_concurrency: 2,
    control_point: 'mistral-prompt',
    ...over,
  };
}

/** The same of a quota. */
export function quotaValues(
  over: {
    readonly name?: string;
    readonly block?: Fields;
    readonly limiter?: Fields;
    readonly scheduler?: Fields;
  } = {},
): unknown {
  return {
    blueprint: 'quota-scheduling/base',
    policy: {
      policy_name: over.name ?? 'quota',
      quota_scheduler: {
        bucket_capacity: 500,
        fill_amount: 25,
        selectors: [{ control_point: 'mistral-prompt' }],
        rate_limiter: { interval: '1s', ...over.limiter },
        scheduler: { ...over.scheduler },
        ...over.block,
      },
    },
  };
}

/** The same of a rate limit. */
export function rateValues(
  over: { readonly name?: string; readonly block?: Fields; readonly limiter?: Fields } = {},
): unknown {
  return {
    blueprint: 'rate-limiting/base',
    policy: {
      policy_name: over.name ?? 'rate',
      rate_limiter: {
        bucket_capacity: 40,
        fill_amount: 2,
        selectors: [{ control_point: 'mistral-prompt' }],
        parameters: { interval: '1s', ...over.limiter },
        ...over.block,
      },
    },
  };
}

/** The scheduler that the document's policy orders with; fails when it has none. */
export function schedulerIn(document: unknown): Scheduler {
  const policy = parsePolicy(document);
  if ('scheduler' in policy) return policy.scheduler;
  throw new Error(`a policy of kind ${policy.kind} has no scheduler`);
}

/** The problems that the document is refused with, by path; fails when it is let pass. */
export function problemsIn(document: unknown): Record<string, string> {
  try {
    parsePolicy(document);
  } catch (error) {
    if (error instanceof PolicyError && error.code === 'invalid_request') {
      return Object.fromEntries(error.problems.map(({ path, reason }) => [path, reason]));
    }
    throw error;
  }
  throw new Error('the document was let pass');
}

/** The paths of a schema's fields, down to matchers, lists of texts and mappings of any keys. */
export function fieldsOf(schema: unknown, path = ''): string[] {
  if (!isMapping(schema) || path.endsWith('label_matcher')) return [path];
  const inner = (key: string) => (path === '' ? key : `${path}.${key}`);
  if (isMapping(schema.properties)) {
    return Object.entries(schema.properties).flatMap(([key, field]) => fieldsOf(field, inner(key)));
  }
  const isListOfMappings = isMapping(schema.items) && isMapping(schema.items.properties);
  return isListOfMappings ? fieldsOf(schema.items, inner('0')) : [path];
}

/** Text of any kind that a caller could send, separators and control characters included. */
export const hostileTexts: readonly string[] = [
  '/',
  ',',
  '=',
  '@',
  ':',
  '.',
  '%',
  '%2F',
  '-',
  'a/b@5/c/d',
  'pool:mistral',
  'mistral.user_id=u1',
  '\u0000',
  '\u0001',
  '\n',
  '\u007f',
  '\u2028',
  '__proto__',
  'constructor',
  'toString',
  'é',
  '日本',
  '🙂',
];
