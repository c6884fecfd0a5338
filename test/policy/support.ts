/** Values files for the tests of the policy part. */

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
