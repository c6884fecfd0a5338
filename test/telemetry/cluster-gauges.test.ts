/** What a gateway sees of the cluster reaches a collector as gauges, with names that are bounded. */
import { expect, test, vi } from 'vitest';
import { type ClusterSample, clusterSampled, requestDecided } from '../../src/diagnostics.ts';
import { startOpenTelemetry } from '../../src/telemetry/index.ts';
import { startCollector } from './collector.ts';

interface Exported {
  readonly resourceMetrics: readonly {
    readonly scopeMetrics: readonly {
      readonly metrics: readonly {
        readonly name: string;
        readonly gauge?: { readonly dataPoints: readonly DataPoint[] };
      }[];
    }[];
  }[];
}
interface DataPoint {
  readonly asDouble?: number;
  readonly asInt?: number | string;
  readonly attributes: readonly {
    readonly key: string;
    readonly value: { readonly stringValue: string };
  }[];
}

/** `name{key=value}` -> number of one export. */
function gaugesOf(text: string): Record<string, number> {
  const { resourceMetrics } = JSON.parse(text) as Exported;
  const metrics = resourceMetrics.flatMap(({ scopeMetrics }) =>
    scopeMetrics.flatMap((scope) => scope.metrics),
  );
  const points = metrics.flatMap(({ name, gauge }) =>
    (gauge?.dataPoints ?? []).map(({ asDouble, asInt, attributes }) => {
      const labels = attributes.map(({ key, value }) => `${key}=${value.stringValue}`).join();
      return [`${name}{${labels}}`, asDouble ?? Number(asInt)] as const;
    }),
  );
  return Object.fromEntries(points);
}

test('the last sample is exported as it was told', async () => {
  const collector = await startCollector({ answers: true });
  vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', collector.url);
  vi.stubEnv('OTEL_EXPORTER_OTLP_PROTOCOL', 'http/json');
  vi.stubEnv('OTEL_METRICS_EXPORTER', 'otlp');
  expect(clusterSampled.hasSubscribers).toBe(false);
  const stop = startOpenTelemetry('sluice-test');
  expect(clusterSampled.hasSubscribers).toBe(true);
  const sample = (gap: number): ClusterSample => ({
    fairness: [
      { policy: '(all)', gap: 0, bound: 0 },
      { policy: 'mistral', gap, bound: 350 },
    ],
    waiting: [
      { controlPoint: 'mistral-prompt', waiting: 7 },
      { controlPoint: 'other', waiting: 1 },
    ],
    slots: [
      { limiter: 'mistral', inFlight: 3, limit: 4 },
      { limiter: 'pool:mistral', inFlight: 3, limit: 8 },
    ],
    alerters: [
      { policy: 'mistral', name: 'busy', severity: 'warn', resolveMs: 0, labels: { team: 'a' } },
      { policy: 'quiet', name: 'quiet', severity: 'info', resolveMs: 0, labels: {} },
    ],
  });
  clusterSampled.publish(sample(1));
  clusterSampled.publish(sample(12.5));
  for (const accepted of [true, false]) requestDecided.publish({ policy: 'mistral', accepted });
  await stop();
  vi.unstubAllEnvs();
  expect(clusterSampled.hasSubscribers).toBe(false);
  expect(gaugesOf(collector.received('/v1/metrics'))).toEqual({
    'sluice.fairness.gap{policy=(all)}': 0,
    'sluice.fairness.gap{policy=mistral}': 12.5,
    'sluice.fairness.bound{policy=(all)}': 0,
    'sluice.fairness.bound{policy=mistral}': 350,
    'sluice.queue.waiting{control_point=mistral-prompt}': 7,
    'sluice.queue.waiting{control_point=other}': 1,
    'sluice.slots.in_flight{limiter=mistral}': 3,
    'sluice.slots.in_flight{limiter=pool:mistral}': 3,
    'sluice.slots.limit{limiter=mistral}': 4,
    'sluice.slots.limit{limiter=pool:mistral}': 8,
    'sluice.policy.alert{label.team=a,policy=mistral,alert_name=busy,severity=warn}': 1,
    'sluice.policy.alert{policy=quiet,alert_name=quiet,severity=info}': 0,
    'sluice.policy.accepted_ratio{policy=mistral}': 0.5,
  });
});
