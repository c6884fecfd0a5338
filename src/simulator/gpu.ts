/**
 * A stated model of one GPU that serves Mistral 7B with continuous batching. Pure: it holds no
 * timer and reads no clock; whoever drives it says what time it is and asks when the next event is.
 *
 * Where the numbers come from. Mistral 7B has 7.24e9 parameters, 14.5 GB in 16 bits
 * (arXiv:2310.06825), and the card is an NVIDIA T4: 320 GB/s and 65 TFLOPS (its datasheet).
 *
 * - *Decoding* reads every weight once per step and gives one token to each request in the batch.
 *   At 75 % of the bandwidth that is 14.5 / (0.75 * 320) = 60 ms (`stepMs`), whatever the batch. On
 *   top comes what each request adds: its own KV cache (128 KiB a token), its share of the
 *   arithmetic, sampling, scheduling: 5 ms (`stepPerRequestMs`). Hence, with b requests in the batch,
 *
 *       step(b) = stepMs + b * stepPerRequestMs       and each request decodes 1 / step(b) tokens/ms
 *
 *   alone 15.4 tokens/s; four at once 12.5 each, 50 together. So a larger batch is better for the
 *   card and worse for each request, which is the trade that a concurrency limit is set by.
 * - *Prefill* is bound by arithmetic: 2 * 7.24e9 operations a token, at a quarter of the peak about
 *   1,000 tokens/s, shared equally by the requests that are in prefill. It overlaps with the
 *   decoding of others (chunked prefill); a request in prefill counts in b.
 * - At most `slots` requests are in the batch, the others wait in arrival order.
 *
 * With answers of 160 to 440 tokens, one answer alone takes 10 to 29 s. The model is a statement,
 * not a measurement: it has no cold start, no paging, and no limit of KV memory beside `slots`.
 *
 * How it is computed. Between two events (arrival, departure, end of a prefill, a group of tokens)
 * every rate is constant, so the state at any time, and the time of the next event, are exact:
 * processor sharing in event steps. Nothing here runs once per token.
 */

import assert from 'node:assert';

export interface GpuOptions {
  /** Requests that decode at once (the batch size); the others wait. */
  readonly slots: number;
  /** Prompt tokens read per second, over all requests in prefill. */
  readonly prefillTokensPerSecond: number;
  /** The part of a decoding step that does not depend on the batch, in ms. */
  readonly stepMs: number;
  /** What each request in the batch adds to a decoding step, in ms. */
  readonly stepPerRequestMs: number;
}

/** What one request asks of the card. */
export interface Work {
  /** Tokens to read, at least 1. */
  readonly promptTokens: number;
  /** Tokens to write; 0 ends with the prefill (an embedding). */
  readonly answerTokens: number;
  /** Say `tokens` after each so many of them; absent: only the end is said. */
  readonly groupTokens?: number;
  /** Divides this request's rates, without a gain for the others; 1 is normal. */
  readonly slowdown?: number;
}

/** When the stages of one request ended, on the driver's clock, in ms. */
export interface Stages {
  readonly arrivedAt: number;
  readonly enteredAt: number;
  readonly prefilledAt: number;
  readonly endedAt: number;
}

export type GpuEvent =
  | { readonly type: 'entered'; readonly id: number; readonly at: number }
  | { readonly type: 'tokens'; readonly id: number; readonly at: number; readonly tokens: number }
  | { readonly type: 'ended'; readonly id: number; readonly at: number; readonly stages: Stages };

interface Resident {
  readonly id: number;
  readonly work: Work;
  readonly arrivedAt: number;
  enteredAt: number;
  prefilledAt: number | undefined;
  /** Tokens to go until this request's next event: to the end of its prefill, then of its group. */
  remaining: number;
  /** Answer tokens written at its last event. */
  written: number;
}

/** Events this close together are one, in ms: far below any step, far above rounding. */
const sameInstantMs = 1e-6;

/** A token is whole when so little of it is missing: rounding. */
const sameTokens = 1e-9;

/**
 * The card. Each method takes the time `now` (ms, never running backwards), brings the state there
 * and returns what happened since the last call, in order, each with its exact time.
 */
export class Gpu {
  readonly #options: GpuOptions;
  readonly #batch = new Map<number, Resident>();
  readonly #queue = new Map<number, Resident>(); // a Map keeps arrival order and removes in O(1)
  #now = 0;

  constructor(options: GpuOptions) {
    assert(Number.isInteger(options.slots) && options.slots >= 1, 'slots');
    assert(options.prefillTokensPerSecond > 0, 'prefillTokensPerSecond');
    assert(options.stepMs >= 0 && options.stepPerRequestMs >= 0, 'step times');
    assert(options.stepMs + options.stepPerRequestMs > 0, 'a step takes time');
    this.#options = options;
  }

  /** Requests in the batch. */
  get running(): number {
    return this.#batch.size;
  }

  /** Requests that wait for a place in the batch. */
  get queued(): number {
    return this.#queue.size;
  }

  /** A request arrives. Its id must not be in use. */
  arrive(id: number, work: Work, now: number): GpuEvent[] {
    assert(!this.#batch.has(id) && !this.#queue.has(id), `request ${id} is here already`);
    const events = this.advance(now);
    this.#queue.set(id, {
      id,
      work,
      arrivedAt: now,
      enteredAt: now,
      prefilledAt: undefined,
      remaining: Math.max(1, work.promptTokens),
      written: 0,
    });
    this.#fill(events);
    return events;
  }

  /** A request is taken back. Its place goes to the next at once; unknown ids change nothing. */
  leave(id: number, now: number): GpuEvent[] {
    const events = this.advance(now);
    this.#queue.delete(id);
    this.#batch.delete(id);
    this.#fill(events);
    return events;
  }

  /** Bring the state to `now`. */
  advance(now: number): GpuEvent[] {
    assert(now >= this.#now, 'time runs backwards');
    const events: GpuEvent[] = [];
    for (;;) {
      const waitMs = this.#nextWaitMs();
      if (waitMs === undefined || this.#now + waitMs > now) break;
      this.#step(waitMs, events);
    }
    this.#progress(now - this.#now);
    this.#now = now;
    return events;
  }

  /** When the next event is due if nobody arrives or leaves; undefined when nothing runs. */
  nextEventAt(): number | undefined {
    const waitMs = this.#nextWaitMs();
    return waitMs === undefined ? undefined : this.#now + waitMs;
  }

  /** Whole tokens that a request has written by the last call; undefined when it is not here. */
  written(id: number): number | undefined {
    const resident = this.#batch.get(id);
    if (resident?.prefilledAt === undefined) return resident || this.#queue.has(id) ? 0 : undefined;
    const part = this.#group(resident) - resident.remaining;
    return resident.written + Math.max(0, Math.floor(part + sameTokens));
  }

  #nextWaitMs(): number | undefined {
    let least: number | undefined;
    const rates = this.#rates();
    for (const resident of this.#batch.values()) {
      const waitMs = Math.max(0, resident.remaining / this.#rate(resident, rates));
      if (least === undefined || waitMs < least) least = waitMs;
    }
    return least;
  }

  /** Go exactly to the next event. Whoever is due there is chosen before moving: no rounding. */
  #step(waitMs: number, events: GpuEvent[]): void {
    const rates = this.#rates();
    const due = [...this.#batch.values()].filter(
      (resident) => resident.remaining / this.#rate(resident, rates) <= waitMs + sameInstantMs,
    );
    this.#progress(waitMs);
    this.#now += waitMs;
    for (const resident of due) this.#reach(resident, events);
    this.#fill(events);
  }

  #reach(resident: Resident, events: GpuEvent[]): void {
    const { id, work } = resident;
    if (resident.prefilledAt === undefined) resident.prefilledAt = this.#now;
    else resident.written += this.#group(resident);

    if (resident.written < work.answerTokens) {
      if (resident.written > 0) {
        events.push({ type: 'tokens', id, at: this.#now, tokens: resident.written });
      }
      resident.remaining = this.#group(resident);
      return;
    }
    this.#batch.delete(id);
    const { arrivedAt, enteredAt, prefilledAt } = resident;
    const stages = { arrivedAt, enteredAt, prefilledAt, endedAt: this.#now };
    events.push({ type: 'ended', id, at: this.#now, stages });
  }

  #fill(events: GpuEvent[]): void {
    for (const resident of this.#queue.values()) {
      if (this.#batch.size >= this.#options.slots) return;
      this.#queue.delete(resident.id);
      resident.enteredAt = this.#now;
      this.#batch.set(resident.id, resident);
      events.push({ type: 'entered', id: resident.id, at: this.#now });
    }
  }

  #progress(elapsedMs: number): void {
    const rates = this.#rates();
    for (const resident of this.#batch.values()) {
      resident.remaining -= elapsedMs * this.#rate(resident, rates);
    }
  }

  /** Tokens from one event of a decoding request to its next. */
  #group(resident: Resident): number {
    const left = resident.work.answerTokens - resident.written;
    return Math.min(left, resident.work.groupTokens ?? left);
  }

  /** Tokens per ms that a request gets in each phase, at this moment. */
  #rates(): { prefill: number; decode: number } {
    const { prefillTokensPerSecond, stepMs, stepPerRequestMs } = this.#options;
    let inPrefill = 0;
    for (const { prefilledAt } of this.#batch.values()) if (prefilledAt === undefined) inPrefill++;
    return {
      prefill: prefillTokensPerSecond / 1000 / Math.max(1, inPrefill),
      decode: 1 / (stepMs + this.#batch.size * stepPerRequestMs),
    };
  }

  #rate(resident: Resident, rates: { prefill: number; decode: number }): number {
    const rate = resident.prefilledAt === undefined ? rates.prefill : rates.decode;
    return rate / (resident.work.slowdown ?? 1);
  }
}
