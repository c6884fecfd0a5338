/** Traces and metrics reach a collector, and a collector that fails is nobody's trouble. */
import { expect, test } from 'vitest';
import { type SluiceProcess, startSluice } from '../gateway/process.ts';
import { testRedis } from '../support/redis.ts';
import { startCollector } from './collector.ts';

const secret = 'xyzzy';

/** `sluice dev` on the test Redis, with prompts answered and flows admitted. */
async function devWithPrompt(
  redisUrl: string,
  env: Record<string, string>,
): Promise<{ dev: SluiceProcess; controlPoint: string }> {
  const domain = `t${Math.floor(Math.random() * 1e9)}`;
  const dev = await startSluice(['dev'], {
    env: { REDIS_URL: redisUrl, PORT: '0', GRPC_PORT: '0', ...env },
    config: {
      domain,
      // BullMQ's queues are named by the pool alone.
      pools: { [domain]: {} },
    },
  });
  const url = await dev.says(/gateway +(http:\S+)/);
  const answer = await fetch(`${url}/api/generate`, {
    method: 'POST',
    headers: { 'Sluice-Labels': `user_id=${secret}`, 'Sluice-Control-Point': 'seen-nowhere' },
    body: JSON.stringify({ prompt: secret, options: { num_predict: 1 } }),
  });
  expect(answer.status).toBe(200);
  const again = await fetch(`${url}/api/generate`, {
    method: 'POST',
    body: JSON.stringify({ prompt: secret, options: { num_predict: 1 } }),
  });
  expect(again.status).toBe(200);
  for (const control_point of ['seen-nowhere', `${domain}-prompt`]) {
    const labels = { user_id: secret };
    const body = JSON.stringify({ control_point, labels });
    expect((await fetch(`${url}/v1/flows`, { method: 'POST', body })).status).toBe(200);
  }
  return { dev, controlPoint: `${domain}-prompt` };
}

test('traces arrive while it runs, metrics and the rest at the latest when it stops', async () => {
  const collector = await startCollector({ answers: true });
  const { url } = await testRedis();
  const { dev, controlPoint } = await devWithPrompt(url, {
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_BSP_SCHEDULE_DELAY: '50',
  });
  await collector.until('/v1/traces', 'attempt');
  dev.signal('SIGTERM');
  expect({ code: await dev.ended, said: dev.output() }).toMatchObject({ code: 0 });
  const traces = collector.received('/v1/traces');
  for (const text of [
    'sluice',
    'prompt',
    'attempt',
    'flow wait',
    'admitted',
    'control_point',
    controlPoint,
    'done',
  ]) {
    expect(traces).toContain(text);
  }
  const metrics = collector.received('/v1/metrics');
  const gauges = ['sluice.fairness.gap', 'sluice.fairness.bound', 'sluice.slots.limit'];
  const histograms = [
    'sluice.prompt.duration',
    'sluice.prompt.first_token',
    'sluice.attempt.duration',
    'sluice.flow.wait',
  ];
  for (const text of [...histograms, ...gauges, 'sluice.queue.waiting', controlPoint]) {
    expect(metrics).toContain(text);
  }
  // Whoever names control points does not get a time series for each.
  expect(metrics).toContain('other');
  for (const received of [traces, metrics, dev.output()]) {
    expect(received).not.toContain(secret);
    expect(received).not.toContain('seen-nowhere');
  }
});

test('a collector that refuses or never answers delays no prompt and no stop', async () => {
  const { url } = await testRedis();
  const silent = await startCollector({ answers: false });
  // A port that the system reserves: nobody listens there.
  await Promise.all([
    expectUndisturbed(url, silent.url),
    expectUndisturbed(url, 'http://127.0.0.1:1'),
  ]);
  expect(silent.received('/v1/traces')).toContain('attempt');
});

async function expectUndisturbed(redisUrl: string, endpoint: string): Promise<void> {
  const { dev } = await devWithPrompt(redisUrl, {
    OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
    OTEL_BSP_SCHEDULE_DELAY: '10',
    OTEL_METRIC_EXPORT_INTERVAL: '100',
    OTEL_METRIC_EXPORT_TIMEOUT: '100',
  });
  const from = performance.now();
  dev.signal('SIGTERM');
  expect({ code: await dev.ended, said: dev.output() }).toMatchObject({ code: 0 });
  expect(performance.now() - from).toBeLessThan(6_000);
}
