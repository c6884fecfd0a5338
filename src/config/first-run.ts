/** What a fresh clone runs with when nobody has configured anything. */
import { deepFreeze } from '../document.ts';

/** The name of the first run's pool, model and policy. */
export const firstRunName = 'mistral';

/** The policy of the first run: a values file, as a person would write it. */
export const firstRunPolicy: unknown = deepFreeze({
  blueprint: 'concurrency-scheduling/base',
  policy: {
    policy_name: firstRunName,
    components: [],
    resources: { flow_control: { classifiers: [] } },
    concurrency_scheduler: {
      max_concurrency: 4,
      concurrency_limiter: { max_inflight_duration: '60s' },
      scheduler: {
        priority_label_key: 'priority',
        tokens_label_key: 'tokens',
        workload_label_key: 'workload',
        fairness_label_key: 'user_id',
        default_workload_parameters: { priority: 1, queue_timeout: '120s' },
      },
      selectors: [{ control_point: 'mistral-prompt' }],
    },
  },
});
