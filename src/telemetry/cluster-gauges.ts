import type { Attributes, Meter } from '@opentelemetry/api';
import type { ClusterSample } from '../diagnostics.ts';

/** A sample older than this says nothing about now: its gateway cannot reach Redis, or stops, ms. */
const staleMs = 60_000;

/**
 * Gauges of what a gateway sees of the cluster. Each gateway tells the same of the whole cluster but
 * for `sluice.fairness.bound`, so take one of them or the maximum, not their sum. The returned
 * function takes the samples.
 */
export function clusterGauges(meter: Meter): (message: unknown) => void {
  let last: { readonly sample: ClusterSample; readonly atMs: number } | undefined;
  const gauge = (
    name: string,
    options: { unit: string; description: string },
    values: (sample: ClusterSample) => readonly (readonly [number, Attributes])[],
  ) => {
    meter.createObservableGauge(name, options).addCallback((result) => {
      if (!last || performance.now() - last.atMs > staleMs) return;
      for (const [value, attributes] of values(last.sample)) result.observe(value, attributes);
    });
  };
  gauge(
    'sluice.fairness.gap',
    {
      unit: '{token}',
      description:
        'Tokens over weight between the most and the least served of those that wait and may run',
    },
    ({ fairness }) => fairness.map(({ policy, gap }) => [gap, { policy }]),
  );
  gauge(
    'sluice.fairness.bound',
    {
      unit: '{token}',
      description: 'The most that the gap may be, from the largest costs this gateway has seen',
    },
    ({ fairness }) => fairness.map(({ policy, bound }) => [bound, { policy }]),
  );
  gauge(
    'sluice.queue.waiting',
    { unit: '{request}', description: 'Requests that wait at a control point' },
    ({ waiting }) =>
      waiting.map(({ controlPoint, waiting: count }) => [count, { control_point: controlPoint }]),
  );
  gauge(
    'sluice.slots.in_flight',
    { unit: '{slot}', description: 'Slots of a policy or a pool that are taken' },
    ({ slots }) => slots.map(({ limiter, inFlight }) => [inFlight, { limiter }]),
  );
  gauge(
    'sluice.slots.limit',
    { unit: '{slot}', description: 'Slots that a policy or a pool has' },
    ({ slots }) => slots.map(({ limiter, limit }) => [limit, { limiter }]),
  );
  return (message) => {
    last = { sample: message as ClusterSample, atMs: performance.now() };
  };
}
