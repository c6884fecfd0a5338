import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { metrics, SpanStatusCode, trace } from '@opentelemetry/api';
import { NodeSDK } from '@opentelemetry/sdk-node';
import { type AttemptEnded, attemptEnded, type PromptEnded, promptEnded } from '../diagnostics.ts';

/** How long a stop waits for the last spans and metrics to be taken, ms. */
const flushMs = 2_000;

/**
 * OpenTelemetry, configured by its own environment variables (OTEL_*). Turns what the core says on
 * its diagnostics channels into spans and metrics; metric attributes come from bounded sets, ids go
 * on spans only. The returned function flushes and stops; it never throws, and a collector that
 * cannot be reached holds it up for {@link flushMs} at most.
 */
export function startOpenTelemetry(): () => Promise<void> {
  const sdk = new NodeSDK({ serviceName: 'sluice' });
  sdk.start();
  const tracer = trace.getTracer('sluice');
  const meter = metrics.getMeter('sluice');
  const prompts = meter.createHistogram('sluice.prompt.duration', {
    unit: 'ms',
    description: 'From the request at the gateway to its answer or error',
  });
  const attempts = meter.createHistogram('sluice.attempt.duration', {
    unit: 'ms',
    description: 'One attempt at a replica',
  });

  const span = (name: string, at: { startedAtMs: number; totalMs: number }, attributes: object) => {
    const ended = tracer.startSpan(name, {
      startTime: at.startedAtMs,
      attributes: { ...attributes },
    });
    if (!('outcome' in attributes) || attributes.outcome !== 'done') {
      ended.setStatus({ code: SpanStatusCode.ERROR });
    }
    ended.end(at.startedAtMs + at.totalMs);
  };
  const onPrompt = (message: unknown) => {
    const { id, controlPoint, outcome, totalMs, startedAtMs } = message as PromptEnded;
    const bounded = { control_point: controlPoint, outcome };
    prompts.record(totalMs, bounded);
    span('prompt', { startedAtMs, totalMs }, { ...bounded, id });
  };
  const onAttempt = (message: unknown) => {
    const { id, attempt, pool, replica, outcome, totalMs, startedAtMs } = message as AttemptEnded;
    const bounded = { pool, replica, outcome };
    attempts.record(totalMs, bounded);
    span('attempt', { startedAtMs, totalMs }, { ...bounded, id, attempt });
  };
  subscribe(promptEnded.name, onPrompt);
  subscribe(attemptEnded.name, onAttempt);
  return async () => {
    unsubscribe(promptEnded.name, onPrompt);
    unsubscribe(attemptEnded.name, onAttempt);
    const deadline = Promise.withResolvers<void>();
    const timer = setTimeout(deadline.resolve, flushMs);
    const flushed = sdk.shutdown().catch(() => {
      // What the collector did not take is lost; that is no reason to fail.
    });
    await Promise.race([flushed, deadline.promise]);
    clearTimeout(timer);
  };
}
