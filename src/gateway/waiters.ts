import type { Admission } from '../admission/index.ts';
import type { NodeEvent } from '../stream/index.ts';

/** How a request ended, as its waiter needs it. Times in ms of Redis' clock. */
export interface End {
  readonly state: string;
  readonly code?: string | undefined;
  readonly message?: string | undefined;
  readonly queuedMs?: number | undefined;
}

interface Waiter {
  readonly resolve: (end: End) => void;
  /** Redis has said that it took the request in. */
  accepted: boolean;
  /** By then it has ended, on the monotonic clock, ms. */
  giveUpAtMs: number;
}

/**
 * Clients of this gateway that wait for the end of a request. An event is only a doorbell: the
 * record in Redis is what counts, and it is read again after every gap and now and then, so a lost
 * message delays an answer and never loses it.
 */
export class Waiters {
  readonly #admission: Admission;
  readonly #onError: (error: unknown) => void;
  readonly #waiters = new Map<string, Waiter>();
  #timer: NodeJS.Timeout | undefined;
  #checking = false;

  constructor(admission: Admission, onError: (error: unknown) => void) {
    this.#admission = admission;
    this.#onError = onError;
  }

  get size(): number {
    return this.#waiters.size;
  }

  start(everyMs: number): void {
    this.#timer ??= setInterval(() => void this.check(), everyMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Resolves when the request has ended. Call it before the request is submitted. */
  wait(id: string): Promise<End> {
    return new Promise((resolve) =>
      this.#waiters.set(id, { resolve, accepted: false, giveUpAtMs: Number.POSITIVE_INFINITY }),
    );
  }

  /**
   * Redis took the request in: from now on, one that it does not know is lost, and so is one whose
   * end is not heard of within `longestMs`.
   */
  accepted(id: string, longestMs: number): void {
    const waiter = this.#waiters.get(id);
    if (!waiter) return;
    waiter.accepted = true;
    waiter.giveUpAtMs = performance.now() + longestMs;
  }

  forget(id: string): void {
    this.#waiters.delete(id);
  }

  onEvent(event: NodeEvent): void {
    if (this.#waiters.has(event.id) && isEnd(event.state)) void this.#read(event.id);
  }

  /** Reads every waiter's request again. */
  async check(): Promise<void> {
    if (this.#checking) return;
    this.#checking = true;
    try {
      const ids = [...this.#waiters.keys()];
      const live = await this.#admission.inspectLive(ids);
      for (const id of ids) if (!live.has(id)) await this.#read(id);
    } catch (error) {
      this.#onError(error);
    } finally {
      this.#checking = false;
      for (const [id, waiter] of this.#waiters) {
        if (performance.now() > waiter.giveUpAtMs) this.#resolve(id, waiter, lost);
      }
    }
  }

  async #read(id: string): Promise<void> {
    const accepted = this.#waiters.get(id)?.accepted ?? false;
    try {
      const { request, ended } = await this.#admission.inspectRequest(id);
      const waiter = this.#waiters.get(id);
      if (!waiter || request) return;
      if (!ended) {
        // Its submit is on the way, or Redis came back without it.
        if (accepted) this.#resolve(id, waiter, lost);
        return;
      }
      const left = ended.admitted_at ?? ended.ended_at;
      this.#resolve(id, waiter, {
        state: ended.state,
        code: ended.code,
        message: ended.message,
        queuedMs: left - ended.created_at,
      });
    } catch (error) {
      this.#onError(error);
    }
  }

  #resolve(id: string, waiter: Waiter, end: End): void {
    this.#waiters.delete(id);
    waiter.resolve(end);
  }
}

const lost: End = {
  state: 'lost',
  code: 'unavailable',
  message: 'Redis no longer knows the request or does not answer; it may or may not have run',
};

function isEnd(state: string | undefined): boolean {
  return state !== undefined && !['waiting', 'admitted', 'running'].includes(state);
}
