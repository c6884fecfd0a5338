import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import type { Admission, BeginResult, Holder, Outcome } from '../src/admission/index.ts';
import { nodeChannel, streamKey } from '../src/admission/index.ts';
import { type AttemptEnded, attemptEnded } from '../src/diagnostics.ts';
import type { PromptJob } from '../src/dispatch/index.ts';
import type { ReplicaClient } from '../src/pool/index.ts';
import { decodePrompt, type Protocol } from '../src/protocols/index.ts';
import type { Appender, NodeEvent } from '../src/stream/index.ts';
import { type Exchanged, type ExchangeLimits, exchange } from './exchange.ts';

/**
 * The prompts that a worker runs. One attempt: delivered -> begun (or dropped: somebody else has
 * it) -> called -> finished. It is aborted when
 *   expired    its lease is about to end, whatever the heartbeat (the max inflight duration)
 *   cancelled  its client wants it ended
 *   lost       the lease could not be renewed: another worker may run it already
 *   stopping   this process is asked to go and cannot wait any longer
 * A lost attempt says nothing more; every other one ends with exactly one finish.
 */
type AbortReason = 'expired' | 'cancelled' | 'lost' | 'stopping';

type Running = Extract<BeginResult, { status: 'run' }>;

interface Attempt {
  readonly holder: Holder;
  readonly controller: AbortController;
  /** Until when the lease is surely ours, on this process's monotonic clock, ms. */
  leaseUntilMs: number;
  /** Why the replica failed it, as it may stand in the log. */
  reason?: string;
}

export interface AttemptsOptions {
  readonly admission: Pick<Admission, 'domain' | 'now' | 'begin' | 'renew' | 'finish'>;
  readonly replicas: ReplicaClient;
  readonly appender: Appender;
  readonly workerId: string;
  /** A lease without a heartbeat, ms; renewed three times as often. */
  readonly heartbeatMs: number;
  /** How long before its end a lease is given up, so that the upstream call is surely over, ms. */
  readonly abortMarginMs: number;
  /** A replica that failed is left alone for so long, ms. */
  readonly replicaDownMs: number;
  readonly limits: ExchangeLimits;
  readonly log: Logger;
}

export class Attempts {
  readonly #options: AttemptsOptions;
  readonly #running = new Map<string, Attempt>();
  readonly #timers: NodeJS.Timeout[] = [];
  #stopping = false;

  constructor(options: AttemptsOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#timers.length > 0) return;
    const { heartbeatMs } = this.#options;
    this.#timers.push(
      setInterval(() => void this.#renew(), heartbeatMs / 3),
      setInterval(() => this.#dropLost(), heartbeatMs / 20),
    );
  }

  /** Ends what still runs: another worker takes it over. */
  stop(): void {
    this.#stopping = true;
    for (const attempt of this.#running.values()) attempt.controller.abort('stopping');
  }

  /** After everything has ended. */
  close(): void {
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
  }

  /** An order on the worker's channel. */
  onEvent(event: NodeEvent): void {
    if (!event.abort || event.attempt === undefined) return;
    this.#running.get(keyOf(event.id, event.attempt))?.controller.abort('cancelled');
  }

  /** Runs one delivery from begin to finish. Throws only when Redis cannot be reached. */
  async run(job: PromptJob): Promise<void> {
    const { admission, workerId, heartbeatMs, abortMarginMs } = this.#options;
    const holder = { id: job.id, attempt: job.attempt, token: randomUUID() };
    const startedAtMs = Date.now();
    const askedAtMs = performance.now();
    const begun = await admission.begin(holder, workerId);
    if (begun.status !== 'run') return;
    const attempt: Attempt = {
      holder,
      controller: new AbortController(),
      leaseUntilMs: askedAtMs + heartbeatMs,
    };
    const key = keyOf(job.id, job.attempt);
    this.#running.set(key, attempt);
    const leftMs = begun.end_by - admission.now();
    const expiry = setTimeout(
      () => attempt.controller.abort('expired'),
      leftMs - marginOf(leftMs, abortMarginMs),
    );
    if (begun.cancelled) attempt.controller.abort('cancelled');
    if (this.#stopping) attempt.controller.abort('stopping');
    try {
      const outcome = await this.#call(attempt, begun);
      attemptEnded.publish({
        id: job.id,
        attempt: job.attempt,
        pool: job.pool,
        replica: begun.replica.id,
        outcome: outcome?.outcome ?? 'lost',
        startedAtMs,
        totalMs: performance.now() - askedAtMs,
      } satisfies AttemptEnded);
      if (outcome) await this.#finish(attempt, outcome, begun.end_by, begun.replica.id);
    } finally {
      clearTimeout(expiry);
      this.#running.delete(key);
    }
  }

  /** The upstream call as an outcome; undefined when the attempt is lost. */
  async #call(attempt: Attempt, begun: Running): Promise<Outcome | undefined> {
    const { holder, controller } = attempt;
    const { replicas, appender, admission, limits } = this.#options;
    const { domain } = admission;
    const stream = streamKey(domain, holder.id);
    const writer = appender.open({
      id: holder.id,
      attempt: holder.attempt,
      streamKey: stream,
      channel: begun.owner === undefined ? stream : nodeChannel(domain, begun.owner),
      ttlMs: Math.max(0, begun.end_by - admission.now()) + begun.keep_ms,
      signal: controller.signal,
    });
    const { url, protocol, model, template, credentials } = begun.replica;
    const prompt = decodePrompt(begun.body);
    // A client that has seen the beginning of an answer cannot be given another one; a job can.
    const replays = begun.owner === undefined && prompt.replay !== false;
    try {
      if (!replays && (await this.#isSeen(holder, stream))) {
        const message = 'its replica or its worker was gone in the middle of its answer';
        return { outcome: 'failed', code: 'upstream_failed', message };
      }
      const asked = {
        prompt,
        // From a config that was checked.
        target: { url, protocol: protocol as Protocol, model, template, credentials },
        requestId: holder.id,
        attempt: holder.attempt,
        writer,
        signal: controller.signal,
      };
      const leftMs = begun.end_by - admission.now();
      // A silent replica leaves another one the time to answer.
      const firstTokenMs = Math.min(limits.firstTokenMs, leftMs / 2);
      const result = await exchange(replicas, asked, { ...limits, firstTokenMs });
      // Whatever the replica has said is heard before its failure is.
      if (result.status !== 'answered') await writer.flush();
      if (result.status === 'failed') attempt.reason = result.reason;
      return this.#outcomeOf(result, !replays && writer.count > 0);
    } catch (error) {
      if (controller.signal.aborted) {
        const reason = controller.signal.reason as AbortReason;
        if (reason === 'expired') await writer.flush();
        const outcome = outcomeOfAbort(reason);
        if (outcome?.outcome === 'expired' && writer.count === 0) {
          // Silent to the end: nobody else would find that it is frozen while it is full.
          return { ...outcome, replicaDownMs: this.#options.replicaDownMs, isSure: false };
        }
        return outcome && withoutRetry(outcome, !replays && writer.count > 0);
      }
      const { log } = this.#options;
      log.error({ id: holder.id, err: error }, 'an answer could not be kept');
      const message = 'the answer could not be kept';
      return { outcome: 'failed', code: 'unavailable', message };
    }
  }

  /** Whether an attempt before this one has left the beginning of an answer. */
  async #isSeen({ attempt }: Holder, stream: string): Promise<boolean> {
    return attempt > 1 && (await this.#options.appender.has(stream));
  }

  #outcomeOf(result: Exchanged, isSeen: boolean): Outcome {
    switch (result.status) {
      case 'answered':
        return { outcome: 'done', tokens: result.tokens, answer: result.answer };
      case 'refused': {
        const { message } = result;
        return { outcome: 'failed', code: 'invalid_request', message, tokens: 1 };
      }
      case 'failed': {
        const { message, evidence } = result;
        const replicaDownMs = evidence === 'none' ? undefined : this.#options.replicaDownMs;
        const isSure = evidence !== 'broken';
        const code = evidence === 'unreached' ? 'unavailable' : 'upstream_failed';
        return withoutRetry({ outcome: 'retry', code, message, replicaDownMs, isSure }, isSeen);
      }
    }
  }

  /** Says how it ended until Redis has heard it, or the lease is over and nobody would listen. */
  async #finish(attempt: Attempt, outcome: Outcome, endBy: number, replica: string): Promise<void> {
    const { admission, log } = this.#options;
    const { holder } = attempt;
    for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 2_000)) {
      try {
        const { status } = await admission.finish(holder, outcome);
        const line = { id: holder.id, attempt: holder.attempt, replica, outcome: outcome.outcome };
        const { reason } = attempt;
        log.info({ ...line, code: outcome.code, reason, status }, 'attempt ended');
        return;
      } catch (error) {
        const leaseIsOver = performance.now() + pauseMs >= attempt.leaseUntilMs;
        if (leaseIsOver || this.#stopping || admission.now() + pauseMs >= endBy) throw error;
        log.warn({ id: holder.id, err: error }, 'could not report the end of an attempt');
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
    }
  }

  async #renew(): Promise<void> {
    const attempts = [...this.#running.values()];
    const askedAtMs = performance.now();
    try {
      const { items } = await this.#options.admission.renew(attempts.map((one) => one.holder));
      for (const [index, item] of items.entries()) {
        const attempt = attempts[index];
        if (item.status === 'lost') attempt?.controller.abort('lost');
        else if (item.status === 'abort') attempt?.controller.abort('cancelled');
        if (attempt && item.status !== 'lost') {
          attempt.leaseUntilMs = askedAtMs + this.#options.heartbeatMs;
        }
      }
    } catch (error) {
      this.#options.log.warn({ err: error }, 'heartbeat failed');
    }
  }

  #dropLost(): void {
    const { heartbeatMs, abortMarginMs } = this.#options;
    const now = performance.now() + marginOf(heartbeatMs, abortMarginMs);
    for (const attempt of this.#running.values()) {
      if (now >= attempt.leaseUntilMs) attempt.controller.abort('lost');
    }
  }
}

/** An older attempt at the same request may still be reporting its end. */
function keyOf(id: string, attempt: number): string {
  return `${id}-${attempt}`;
}

/** The margin of a short lease is a tenth of it, or nothing would be left. */
function marginOf(leaseMs: number, marginMs: number): number {
  return Math.min(marginMs, leaseMs / 10);
}

function outcomeOfAbort(reason: AbortReason): Outcome | undefined {
  switch (reason) {
    case 'lost':
      return undefined;
    case 'expired':
      return {
        outcome: 'expired',
        code: 'expired',
        message: 'ran longer than the max inflight duration',
      };
    case 'cancelled':
      return { outcome: 'cancelled', code: 'cancelled', message: 'cancelled while it ran' };
    case 'stopping':
      return { outcome: 'retry', code: 'unavailable', message: 'its worker was stopped' };
  }
}

function withoutRetry(outcome: Outcome, isSeen: boolean): Outcome {
  return outcome.outcome === 'retry' && isSeen ? { ...outcome, outcome: 'failed' } : outcome;
}
