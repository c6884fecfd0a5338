/**
 * Runs a {@link Gpu} in real time: one exact timer for its next event, whatever the number of
 * requests, and a speed that divides every time.
 */

import type { Gpu, GpuEvent, Work } from './gpu.ts';

/** Time, so that tests can pass their own. */
export interface Clock {
  /** Milliseconds, monotonic, with fractions. */
  now(): number;
  /** Call `fire` once after `delayMs`, unless the returned function was called before. */
  after(delayMs: number, fire: () => void): () => void;
}

/** How long the stages of one answer took, in real milliseconds. */
export interface Timing {
  readonly queuedMs: number;
  readonly prefillMs: number;
  readonly decodeMs: number;
  readonly totalMs: number;
}

/** What a running request hears. Each is called at most once per token group, `ended` last. */
export interface Listener {
  /** It has got its place in the batch. */
  entered?(): void;
  /** So many answer tokens are written by now. */
  tokens?(written: number): void;
  /** All is written; nothing follows. */
  ended(timing: Timing): void;
}

/** The longest delay that `setTimeout` takes; a later event is reached in several sleeps. */
const longestDelayMs = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => performance.now(),
  after(delayMs, fire) {
    // Node cuts fractions off; rounding up saves a wake-up that would come just too early.
    const timer = setTimeout(fire, Math.min(Math.ceil(delayMs), longestDelayMs));
    return () => clearTimeout(timer);
  },
};

export class Engine {
  readonly #gpu: Gpu;
  readonly #clock: Clock;
  readonly #speed: number;
  readonly #changed: () => void;
  readonly #epoch: number;
  readonly #listeners = new Map<number, Listener>();
  #nextId = 1;
  #cancelTimer: (() => void) | undefined;

  /**
   * @param changed called after each change of who runs and who waits.
   */
  constructor(options: { gpu: Gpu; clock: Clock; speed: number; changed?: () => void }) {
    this.#gpu = options.gpu;
    this.#clock = options.clock;
    this.#speed = options.speed;
    this.#changed = options.changed ?? (() => {});
    this.#epoch = options.clock.now();
  }

  /**
   * Hand a request to the card. The returned function takes it back, frees its place at once and
   * tells how many tokens are written; it may be called at any time and more than once, and is
   * without effect, and undefined, when the request has ended.
   */
  run(work: Work, listener: Listener): () => number | undefined {
    const id = this.#nextId++;
    this.#listeners.set(id, listener);
    this.#dispatch(this.#gpu.arrive(id, work, this.#modelNow()));
    return () => {
      if (!this.#listeners.delete(id)) return undefined;
      const now = this.#modelNow();
      const events = this.#gpu.advance(now);
      // Not on the card any more: its last token is written, and its timer about to say so.
      const written = this.#gpu.written(id) ?? work.answerTokens;
      this.#dispatch([...events, ...this.#gpu.leave(id, now)]);
      return written;
    };
  }

  /** Forget every request without a word to its listener. */
  stop(): void {
    for (const id of this.#listeners.keys()) {
      this.#listeners.delete(id);
      this.#gpu.leave(id, this.#modelNow());
    }
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#changed();
  }

  #modelNow(): number {
    return (this.#clock.now() - this.#epoch) * this.#speed;
  }

  #dispatch(events: GpuEvent[]): void {
    this.#arm();
    this.#changed();
    for (const event of events) {
      // A listener may have left while the events before this one were told.
      const listener = this.#listeners.get(event.id);
      if (!listener) continue;
      if (event.type === 'entered') listener.entered?.();
      else if (event.type === 'tokens') listener.tokens?.(event.tokens);
      else {
        this.#listeners.delete(event.id);
        const { arrivedAt, enteredAt, prefilledAt, endedAt } = event.stages;
        listener.ended({
          queuedMs: (enteredAt - arrivedAt) / this.#speed,
          prefillMs: (prefilledAt - enteredAt) / this.#speed,
          decodeMs: (endedAt - prefilledAt) / this.#speed,
          totalMs: (endedAt - arrivedAt) / this.#speed,
        });
      }
    }
  }

  #arm(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const at = this.#gpu.nextEventAt();
    if (at === undefined) return;
    const delayMs = Math.max(0, (at - this.#modelNow()) / this.#speed);
    this.#cancelTimer = this.#clock.after(delayMs, () => {
      this.#cancelTimer = undefined;
      this.#dispatch(this.#gpu.advance(this.#modelNow()));
    });
  }
}
