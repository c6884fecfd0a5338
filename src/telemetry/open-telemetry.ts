import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { metrics, SpanStatusCode, trace } from '@opentelemetry/api';
import { NodeSDK } from '@opentelemetry/sdk-node';
import {
  type AttemptEnded,
  attemptEnded,
  type ClusterSample,
  clusterSampled,
  type FlowDecided,
  flowDecided,
  type LabelMissing,
  labelMissing,
  type PromptEnded,
  promptEnded,
  type RequestDecided,
  requestDecided,
} from '../diagnostics.ts';
import { clusterGauges } from './cluster-gauges.ts';
import { PolicyAlerts, policyAlertGauges } from './policy-alerts.ts';

/** How long a stop waits for the last spans and metrics to be taken, ms. */
const flushMs = 2_000;

/**
 * OpenTelemetry, configured by its own environment variables (OTEL_*). Turns what the core says on
 * its diagnostics channels into spans and metrics; metric attributes come from bounded sets, ids go
 * on spans only. The returned function flushes and stops; it never throws, and a collector that
 * cannot be reached holds it up for {@link flushMs} at most.
 */
export function startOpenTelemetry(serviceName: string): () => Promise<void> {
  const sdk = new NodeSDK({ serviceName });
  sdk.start();
  const tracer = trace.getTracer('sluice');
  const meter = metrics.getMeter('sluice');
  const prompts = meter.createHistogram('sluice.prompt.duration', {
    unit: 'ms',
    description: 'From the request at the gateway to its answer or error',
  });
  const firstTokens = meter.createHistogram('sluice.prompt.first_token', {
    unit: 'ms',
    description: 'From the request at the gateway to the first token of its stream',
  });
  const flows = meter.createHistogram('sluice.flow.wait', {
    unit: 'ms',
    description: 'From the start of a flow to its admission or rejection',
  });
  const attempts = meter.createHistogram('sluice.attempt.duration', {
    unit: 'ms',
    description: 'One attempt at a replica',
  });
  const missing = meter.createCounter('sluice.label.missing', {
    description: 'Requests without a label that a policy asks for; its default was taken',
  });

  const span = (name: string, at: { startedAtMs: number; totalMs: number }, attributes: object) => {
    const ended = tracer.startSpan(name, {
      startTime: at.startedAtMs,
      attributes: { ...attributes },
    });
    if (!('outcome' in attributes) || !['done', 'admitted'].includes(String(attributes.outcome))) {
      ended.setStatus({ code: SpanStatusCode.ERROR });
    }
    ended.end(at.startedAtMs + at.totalMs);
  };
  const onPrompt = (message: unknown) => {
    const prompt = message as PromptEnded;
    const { id, controlPoint, outcome, totalMs, startedAtMs, firstTokenMs } = prompt;
    const bounded = { control_point: controlPoint, outcome };
    prompts.record(totalMs, bounded);
    if (firstTokenMs !== undefined) firstTokens.record(firstTokenMs, bounded);
    span('prompt', { startedAtMs, totalMs }, { ...bounded, id });
  };
  const onFlow = (message: unknown) => {
    const { id, controlPoint, outcome, totalMs, startedAtMs } = message as FlowDecided;
    const bounded = { control_point: controlPoint, outcome };
    flows.record(totalMs, bounded);
    span('flow wait', { startedAtMs, totalMs }, { ...bounded, id });
  };
  const onAttempt = (message: unknown) => {
    const { id, attempt, pool, replica, outcome, totalMs, startedAtMs } = message as AttemptEnded;
    const bounded = { pool, replica, outcome };
    attempts.record(totalMs, bounded);
    span('attempt', { startedAtMs, totalMs }, { ...bounded, id, attempt });
  };
  const onMissing = (message: unknown) => {
    const { policy, label } = message as LabelMissing;
    missing.add(1, { policy, label });
  };
  const alerts = new PolicyAlerts();
  policyAlertGauges(meter, alerts);
  const listeners = [
    [promptEnded, onPrompt],
    [flowDecided, onFlow],
    [attemptEnded, onAttempt],
    [labelMissing, onMissing],
    [clusterSampled, clusterGauges(meter)],
    [clusterSampled, (message: unknown) => alerts.onSample(message as ClusterSample)],
    [requestDecided, (message: unknown) => alerts.onDecision(message as RequestDecided)],
  ] as const;
  for (const [{ name }, listener] of listeners) subscribe(name, listener);
  return async () => {
    for (const [{ name }, listener] of listeners) unsubscribe(name, listener);
    const deadline = Promise.withResolvers<void>();
    const timer = setTimeout(deadline.resolve, flushMs);
    const flushed = sdk.shutdown().catch(() => {
      // What the collector did not take is lost; that is no reason to fail.
    });
    await Promise.race([flushed, deadline.promise]);
    clearTimeout(timer);
  };
}
