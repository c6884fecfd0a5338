/**
 * The replica's own count of what it was given: the witness against which a scheduler in front of
 * it is checked. Every prompt that it takes has exactly one outcome, so at any time
 *
 *     started = in_flight + completed + aborted + failed
 */

import assert from 'node:assert';
import { SluiceError } from '../errors.ts';

export type Outcome = 'completed' | 'aborted' | 'failed';

/** Numbers of prompts. Fields are spelled as in the JSON of `GET /sim/state`. */
export interface Counts {
  /** Taken and not yet ended: waiting inside, in the batch, or hung by a fault. */
  readonly in_flight: number;
  /** The most that `in_flight` has ever been. */
  readonly in_flight_max: number;
  /** In the batch. */
  readonly running: number;
  readonly running_max: number;
  /** Waiting inside the replica for a place in the batch. */
  readonly queued: number;
  readonly queued_max: number;
  readonly started: number;
  readonly completed: number;
  /** The client went away. */
  readonly aborted: number;
  /** Ended by a fault. */
  readonly failed: number;
  /** Not taken: invalid, unknown model, or the inner queue was full. Not in `started`. */
  readonly rejected: number;
}

/** One prompt in the log. Times are integer milliseconds since 1970. */
export interface LogEntry {
  /** 1 for the first prompt taken since the start or the last reset, then 2, 3, ... */
  readonly order: number;
  /** The header `sluice-request-id`. */
  readonly request_id: string | null;
  /** The header `sluice-attempt`. */
  readonly attempt: number | null;
  readonly path: string;
  readonly stream: boolean;
  readonly prompt_tokens: number;
  /** Length of the answer when nothing breaks it. */
  readonly answer_tokens: number;
  /** Tokens that were really written until it ended; null while it runs. */
  readonly generated_tokens: number | null;
  readonly started_at: number;
  readonly ended_at: number | null;
  readonly outcome: Outcome | 'running';
  /** The fault that it was hit by. */
  readonly fault: string | null;
  /** The body as received, its first 65,536 characters; only with `keepBodies`, and of a POST. */
  readonly body?: string;
  /** The same of the query, without the `?`, as it was encoded. */
  readonly query?: string;
}

/** What the caller knows of a prompt when it starts. */
export type Entry = Omit<
  LogEntry,
  'order' | 'started_at' | 'ended_at' | 'outcome' | 'generated_tokens'
>;

type Numbers = { -readonly [Name in keyof Counts]: number };

export class Ledger {
  readonly #logSize: number;
  #numbers: Numbers = zeroes();
  #order = 0;
  /** By order, so that the oldest is the first. */
  #log = new Map<number, LogEntry>();
  readonly #watchers = new Set<() => void>();

  constructor(logSize: number) {
    this.#logSize = logSize;
  }

  counts(): Counts {
    return { ...this.#numbers };
  }

  /** The last `logSize` prompts, oldest first. */
  log(): LogEntry[] {
    return [...this.#log.values()];
  }

  /**
   * A prompt is taken. The returned function ends it, with the tokens that were written; only the
   * first call counts.
   */
  start(entry: Entry): (outcome: Outcome, generated: number) => void {
    this.#numbers.in_flight += 1;
    this.#numbers.in_flight_max = Math.max(this.#numbers.in_flight_max, this.#numbers.in_flight);
    const order = this.#write(entry);
    const log = this.#log;
    let open = true;
    this.#changed();
    return (outcome, generated) => {
      if (!open) return;
      open = false;
      this.#numbers.in_flight -= 1;
      assert(this.#numbers.in_flight >= 0);
      this.#close(log, order, outcome, generated);
      this.#changed();
    };
  }

  /** A prompt is turned away by a fault: it never held anything, but it was given to us. */
  fail(entry: Entry): void {
    this.#close(this.#log, this.#write(entry), 'failed', 0);
    this.#changed();
  }

  reject(): void {
    this.#numbers.rejected += 1;
    this.#changed();
  }

  /** The batch and the inner queue are now so long. */
  sample(running: number, queued: number): void {
    const numbers = this.#numbers;
    numbers.running = running;
    numbers.queued = queued;
    numbers.running_max = Math.max(numbers.running_max, running);
    numbers.queued_max = Math.max(numbers.queued_max, queued);
    this.#changed();
  }

  /**
   * Everything to zero and an empty log. What is in flight stays in flight, and counts as started
   * after the reset, so that the sums still agree.
   */
  reset(): void {
    const { in_flight, running, queued } = this.#numbers;
    this.#numbers = {
      ...zeroes(),
      ...{ started: in_flight, in_flight, in_flight_max: in_flight },
      ...{ running, running_max: running, queued, queued_max: queued },
    };
    this.#order = 0;
    this.#log = new Map();
    this.#changed();
  }

  /** Resolves as soon as the condition holds; rejects with `expired` after `timeoutMs`. */
  until(condition: (counts: Counts) => boolean, timeoutMs: number): Promise<Counts> {
    return new Promise((resolve, reject) => {
      const settle = () => {
        clearTimeout(timer);
        this.#watchers.delete(look);
      };
      const look = () => {
        const counts = this.counts();
        if (!condition(counts)) return;
        settle();
        resolve(counts);
      };
      const timer = setTimeout(() => {
        settle();
        const seen = JSON.stringify(this.#numbers);
        reject(new SluiceError('expired', `not so after ${timeoutMs} ms: ${seen}`));
      }, timeoutMs);
      this.#watchers.add(look);
      look();
    });
  }

  #write(entry: Entry): number {
    this.#numbers.started += 1;
    this.#order += 1;
    const order = this.#order;
    const started_at = Date.now();
    this.#log.set(order, {
      ...{ order, ...entry, started_at, ended_at: null },
      ...{ generated_tokens: null, outcome: 'running' },
    });
    this.#log.delete(order - this.#logSize);
    return order;
  }

  #close(log: Map<number, LogEntry>, order: number, outcome: Outcome, generated: number): void {
    this.#numbers[outcome] += 1;
    const entry = log.get(order);
    if (!entry) return;
    log.set(order, { ...entry, ended_at: Date.now(), generated_tokens: generated, outcome });
  }

  #changed(): void {
    for (const look of this.#watchers) look();
  }
}

function zeroes(): Numbers {
  return {
    in_flight: 0,
    in_flight_max: 0,
    running: 0,
    running_max: 0,
    queued: 0,
    queued_max: 0,
    started: 0,
    completed: 0,
    aborted: 0,
    failed: 0,
    rejected: 0,
  };
}
