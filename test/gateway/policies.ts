/** Values files of each blueprint on `mistral-prompt`, changed over HTTP, and jobs under them. */
import { expect, onTestFinished } from 'vitest';
import type { World } from './world.ts';

const labelKeys = {
  priority_label_key: 'priority',
  tokens_label_key: 'tokens',
  workload_label_key: 'workload',
  fairness_label_key: 'user_id',
};

export interface Values {
  readonly blueprint: string;
  readonly policy: { readonly policy_name: string };
}

/** What the builders leave out has the default that a test cares least about. */
interface Common {
  readonly name?: string;
  readonly controlPoint?: string;
  readonly scheduler?: object;
}

export function slotValues(
  options: Common & { readonly max?: number; readonly perLabel?: Record<string, number> },
): Values {
  const { name = 'mistral', controlPoint = 'mistral-prompt', max = 4, perLabel } = options;
  return {
    blueprint: 'concurrency-scheduling/base',
    policy: {
      policy_name: name,
      concurrency_scheduler: {
        max_concurrency: max,
        concurrency_limiter: {
          max_inflight_duration: '60s',
          ...(perLabel && { per_label: perLabel }),
        },
        scheduler: { ...labelKeys, ...options.scheduler },
        selectors: [{ control_point: controlPoint }],
      },
    },
  } as Values;
}

export function limitValues(
  options: Omit<Common, 'scheduler'> & {
    readonly max?: number;
    readonly perLabel?: Record<string, number>;
    readonly service?: string;
    readonly request?: object;
    readonly alerter?: object;
  },
): Values {
  const { name = 'limit', controlPoint = 'mistral-prompt', max = 4, perLabel, service } = options;
  return {
    blueprint: 'concurrency-limiting/base',
    policy: {
      policy_name: name,
      concurrency_limiter: {
        max_concurrency: max,
        parameters: { max_inflight_duration: '60s', ...(perLabel && { per_label: perLabel }) },
        ...(options.request && { request_parameters: options.request }),
        ...(options.alerter && { alerter: options.alerter }),
        selectors: [{ control_point: controlPoint, ...(service !== undefined && { service }) }],
      },
    },
  } as Values;
}

interface BucketOptions {
  readonly capacity: number;
  /** Tokens added in each interval. */
  readonly fill: number;
  readonly interval: string;
  readonly label?: string;
  readonly continuous?: boolean;
}

function limiterOf({ interval, label, continuous }: BucketOptions): object {
  return {
    interval,
    ...(label !== undefined && { limit_by_label_key: label }),
    ...(continuous !== undefined && { continuous_fill: continuous }),
  };
}

export function rateValues(
  options: Common & BucketOptions & { readonly request?: object },
): Values {
  const { name = 'rate', controlPoint = 'mistral-prompt', capacity, fill, request } = options;
  return {
    blueprint: 'rate-limiting/base',
    policy: {
      policy_name: name,
      rate_limiter: {
        bucket_capacity: capacity,
        fill_amount: fill,
        parameters: limiterOf(options),
        ...(request && { request_parameters: request }),
        selectors: [{ control_point: controlPoint }],
      },
    },
  } as Values;
}

export function quotaValues(options: Common & BucketOptions): Values {
  const { name = 'quota', controlPoint = 'mistral-prompt', capacity, fill } = options;
  return {
    blueprint: 'quota-scheduling/base',
    policy: {
      policy_name: name,
      quota_scheduler: {
        bucket_capacity: capacity,
        fill_amount: fill,
        rate_limiter: limiterOf(options),
        scheduler: { ...labelKeys, ...options.scheduler },
        selectors: [{ control_point: controlPoint }],
      },
    },
  } as Values;
}

/** `PUT /v1/policies/:name` at a gateway. */
export function putPolicy(url: string, values: Values): Promise<Response> {
  const { policy_name: name } = values.policy;
  const body = JSON.stringify(values);
  return fetch(`${url}/v1/policies/${name}`, { method: 'PUT', body });
}

/** The same, which has to succeed. */
export async function applied(url: string, values: Values): Promise<void> {
  const answer = await putPolicy(url, values);
  expect({ ok: answer.ok, text: await answer.text() }).toMatchObject({ ok: true });
}

export function removePolicy(url: string, name: string, query = ''): Promise<Response> {
  return fetch(`${url}/v1/policies/${name}${query}`, { method: 'DELETE' });
}

/** A job with these labels; returns its id. */
export async function submitJob(
  world: Pick<World, 'url'>,
  labels: Record<string, string> = {},
  init: { readonly headers?: Record<string, string>; readonly controlPoint?: string } = {},
): Promise<string> {
  const { headers = {}, controlPoint } = init;
  const answer = await fetch(`${world.url}/v1/jobs`, {
    method: 'POST',
    headers,
    body: JSON.stringify({
      path: '/api/generate',
      body: { prompt: 'Why?' },
      labels,
      ...(controlPoint !== undefined && { control_point: controlPoint }),
    }),
  });
  const text = await answer.text();
  expect({ status: answer.status, text }).toMatchObject({ status: 202 });
  return (JSON.parse(text) as { id: string }).id;
}

export async function cancelJob(world: World, id: string): Promise<void> {
  const answer = await world.get(`/v1/jobs/${id}`, { method: 'DELETE' });
  expect(answer.ok).toBe(true);
}

/** Ids of the prompts that the replica has taken, in its order. */
export function startedAt(world: World): (string | null)[] {
  return world.simulator.state().log.map((entry) => entry.request_id);
}

/** Clients that ask again as soon as they are answered, until they are stopped. */
export function load(
  world: World,
  clients: number,
  labels = '',
): () => Promise<Map<number, number>> {
  let stopped = false;
  const statuses = new Map<number, number>();
  const body = { prompt: 'Why?', options: { num_predict: 20 } };
  const headers = { 'Sluice-Labels': labels };
  const all = Promise.allSettled(
    Array.from({ length: clients }, async () => {
      while (!stopped) {
        const { status } = await world.post('/api/generate', body, { headers });
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    }),
  );
  const stop = async () => {
    stopped = true;
    await all;
    return statuses;
  };
  // A test that fails leaves nobody behind who asks a gateway that is gone.
  onTestFinished(() => {
    stopped = true;
  });
  return stop;
}
