/** Policies with an alerter hear of each request once whether it was let in; the others never. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { expect, onTestFinished, test } from 'vitest';
import {
  type ClusterSample,
  clusterSampled,
  type RequestDecided,
  requestDecided,
} from '../../src/diagnostics.ts';
import { decisionOf, publishDecision } from '../../src/gateway/decisions.ts';
import { applied, cancelJob, rateValues, slotValues, submitJob, type Values } from './policies.ts';
import { newWorld, type World } from './world.ts';

const generate = { prompt: 'Why?', options: { num_predict: 5 } };

function withAlerter(values: Values): Values {
  const [block = '', fields = {}] =
    Object.entries<object | string>({ ...values.policy }).find(([key]) => key !== 'policy_name') ??
    [];
  const alerter = { alert_name: 'busy' };
  return {
    ...values,
    policy: { ...values.policy, [block]: { ...(fields as object), alerter } },
  };
}

/** What is decided from now on: `policy yes` or `policy no`. */
function listen(): string[] {
  const heard: string[] = [];
  const listener = (message: unknown) => {
    const { policy, accepted } = message as RequestDecided;
    heard.push(`${policy} ${accepted ? 'yes' : 'no'}`);
  };
  subscribe(requestDecided.name, listener);
  onTestFinished(() => {
    unsubscribe(requestDecided.name, listener);
  });
  return heard;
}

/** A prompt that runs until it is cancelled: it holds the only slot of its world. */
async function occupied(world: World): Promise<string> {
  await world.simulator.setFault({ mode: 'hang' });
  const id = await submitJob(world);
  await world.until((view) => view.live === 1 && view.waiting === 0);
  return id;
}

async function settled(world: World, ...ids: string[]): Promise<void> {
  await world.simulator.setFault({ mode: 'none' });
  for (const id of ids) await cancelJob(world, id);
  await world.idle();
}

test('let in at once; in the queue too long; and what has no alerter', async () => {
  const scheduler = { default_workload_parameters: { queue_timeout: '100ms' } };
  const policies = [withAlerter(slotValues({ max: 1, scheduler })), slotValues({ name: 'silent' })];
  const world = await newWorld({ config: { policies } });
  const heard = listen();
  expect((await world.post('/api/generate', generate)).status).toBe(200);
  expect(heard).toEqual(['mistral yes']);
  const id = await occupied(world);
  expect(heard).toEqual(['mistral yes', 'mistral yes']);
  expect((await world.post('/api/generate', generate)).status).toBe(504);
  expect(heard.slice(2)).toEqual(['mistral no']);
  await settled(world, id);
  expect(heard).toHaveLength(3);
});

test('let in after it has waited, once, before it has ended', async () => {
  const world = await newWorld({ config: { policies: [withAlerter(slotValues({ max: 1 }))] } });
  const first = await occupied(world);
  const heard = listen();
  const answer = world.post('/api/generate', generate);
  await world.until((view) => view.waiting === 1);
  expect(heard).toEqual([]);
  await cancelJob(world, first);
  await expect.poll(() => heard).toEqual(['mistral yes']);
  await world.until((view) => view.live === 1 && view.waiting === 0);
  await world.stopGateway();
  expect((await answer).ok).toBe(false);
  expect(heard).toEqual(['mistral yes']);
});

test('a client that goes away while it waits was not refused', async () => {
  const world = await newWorld({ config: { policies: [withAlerter(slotValues({ max: 1 }))] } });
  const id = await occupied(world);
  const heard = listen();
  const gone = new AbortController();
  const answer = world.post('/api/generate', generate, { signal: gone.signal });
  await world.until((view) => view.waiting === 1);
  gone.abort();
  await expect(answer).rejects.toThrow();
  await world.until((view) => view.waiting === 0);
  await settled(world, id);
  expect(heard).toEqual([]);
});

test('a limiter refuses for its own policy alone, a full queue for the policy that lets wait', async () => {
  const policies = [
    withAlerter(slotValues({ max: 1, scheduler: { max_queue_length: 0 } })),
    withAlerter(rateValues({ capacity: 3, fill: 1, interval: '1h' })),
  ];
  const world = await newWorld({ config: { policies } });
  const heard = listen();
  const id = await occupied(world);
  expect(heard).toEqual(['mistral yes', 'rate yes']);
  const full = await world.post('/v1/completions', { prompt: 'Why?' });
  expect(await full.json()).toMatchObject({ error: { code: 'queue_full' } });
  expect(heard.splice(0)).toEqual(['mistral yes', 'rate yes', 'mistral no']);
  await settled(world, id);
  const statuses = [];
  for (let count = 0; count < 4; count += 1) {
    statuses.push((await world.post('/api/generate', generate)).status);
  }
  const refused = statuses.filter((status) => status === 429).length;
  expect(refused).toBeGreaterThan(0);
  expect(heard.filter((one) => one === 'rate no')).toHaveLength(refused);
  expect(heard).not.toContain('mistral no');
});

test('a job counts when it is taken in: nobody follows it here', async () => {
  const world = await newWorld({ config: { policies: [withAlerter(slotValues({ max: 1 }))] } });
  const first = await occupied(world);
  const heard = listen();
  const second = await submitJob(world);
  await world.until((view) => view.waiting === 1);
  expect(heard).toEqual(['mistral yes']);
  await settled(world, second, first);
  expect(heard).toEqual(['mistral yes']);
});

test('a repeat is no other request', async () => {
  const world = await newWorld({ config: { policies: [withAlerter(slotValues({}))] } });
  const heard = listen();
  const init = { headers: { 'Idempotency-Key': 'once' } };
  for (let count = 0; count < 2; count += 1) {
    expect((await world.post('/api/generate', generate, init)).status).toBe(200);
  }
  expect(heard).toEqual(['mistral yes']);
});

test('the alerters of the policies that there are come with each look at the cluster', async () => {
  const samples: ClusterSample['alerters'][] = [];
  const listener = (message: unknown) => samples.push((message as ClusterSample).alerters);
  subscribe(clusterSampled.name, listener);
  onTestFinished(() => {
    unsubscribe(clusterSampled.name, listener);
  });
  const world = await newWorld({ worker: false, sampleMs: 20 });
  await expect.poll(() => samples.at(-1)).toEqual([]);
  await applied(world.url, withAlerter(slotValues({})));
  const busy = { policy: 'mistral', name: 'busy', severity: 'info', resolveMs: 5_000, labels: {} };
  await expect.poll(() => samples.at(-1)).toEqual([busy]);
});

test('a request that is wrong itself is neither accepted nor refused', () => {
  const heard = listen();
  const alerting = [
    { policy: 'rate', letsWait: false },
    { policy: 'waiting', letsWait: true },
  ];
  const refuse = (reason: 'stale_id' | 'over_capacity' | 'queue_timeout', limiter?: string) =>
    publishDecision({ alerting }, false, {
      status: 'rejected',
      reason,
      ...(limiter !== undefined && { limiter }),
    });
  refuse('stale_id');
  refuse('over_capacity', 'rate');
  expect(heard).toEqual([]);
  refuse('queue_timeout');
  publishDecision({ alerting }, false);
  expect(heard).toEqual(['waiting no', 'waiting no']);
});

test('what a request that waits is told decides it, or does not yet', () => {
  const last = { attempt: 1, count: 1 };
  const state = (name: string) =>
    decisionOf({ kind: 'state', state: name, attempt: 1, queuedMs: undefined });
  const end = (name: string) => decisionOf({ kind: 'end', end: { state: name }, last });
  expect(['waiting', 'admitted', 'running'].map(state)).toEqual([undefined, true, true]);
  expect(decisionOf({ kind: 'events', texts: ['{}'], last })).toBe(true);
  const ends = ['done', 'failed', 'expired', 'rejected', 'cancelled'];
  expect(ends.map(end)).toEqual([true, true, true, false, undefined]);
});
