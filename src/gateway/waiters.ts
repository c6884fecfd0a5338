import type { Redis } from 'ioredis';
import { type Admission, streamKey } from '../admission/index.ts';
import {
  type End,
  type EventId,
  Follower,
  isAfter,
  lastEvent,
  type NodeEvent,
  readEntries,
  type Subscription,
} from '../stream/index.ts';

interface Watch {
  readonly follower: Follower;
  /** Its messages come on a channel of its own, since any gateway may follow it. */
  readonly isShared: boolean;
  /** Redis has said that it took the request in. */
  accepted: boolean;
  /** By then it has ended, on the monotonic clock, ms. */
  giveUpAtMs: number;
}

export interface WaitersOptions {
  readonly admission: Admission;
  readonly redis: Redis;
  readonly subscription: Pick<Subscription, 'listen' | 'unlisten'>;
  readonly onError: (error: unknown) => void;
}

/**
 * Clients of this gateway that follow a request. An event only comes first: the record and the stream
 * in Redis are what counts, and they are read again after every gap and now and then, so a lost
 * message delays an answer and never loses it.
 */
export class Waiters {
  readonly #options: WaitersOptions;
  readonly #watches = new Map<string, Set<Watch>>();
  #timer: NodeJS.Timeout | undefined;
  #checking = false;
  /** Messages may have been lost, and followers have not been told. */
  #hasGap = false;
  /** Requests that are read at the end of this turn of the event loop. */
  #toRead = new Set<string>();

  constructor(options: WaitersOptions) {
    this.#options = options;
  }

  start(everyMs: number): void {
    this.#timer ??= setInterval(() => void this.check(), everyMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** A request that this gateway owns. Call it before the request is submitted. */
  follow(id: string): Follower {
    return this.#watch(id, false);
  }

  /**
   * A request that any gateway may follow, from the event that a client has seen last; where there is
   * none, or Redis does not know it, from the beginning of the last attempt. Says where it begins.
   */
  async followShared(id: string, after?: EventId): Promise<{ follower: Follower; from: EventId }> {
    const { redis, subscription } = this.#options;
    const stream = this.#streamOf(id);
    await subscription.listen(stream);
    try {
      const last = await lastEvent(redis, stream);
      const isKnown = after && !isAfter(after, last);
      const from = isKnown ? after : { attempt: last.attempt, count: 0 };
      return { follower: this.#watch(id, true, from), from };
    } catch (error) {
      await subscription.unlisten(stream).catch(this.#options.onError);
      throw error;
    }
  }

  /**
   * Redis took the request in: from now on, one that it does not know is lost, and so is one whose
   * end is not heard of within `longestMs`.
   */
  accepted(id: string, longestMs = Number.POSITIVE_INFINITY): void {
    const giveUpAtMs = performance.now() + longestMs;
    for (const watch of this.#watches.get(id) ?? []) {
      if (watch.accepted) continue;
      watch.accepted = true;
      watch.giveUpAtMs = giveUpAtMs;
      // It may have ended before its channel was heard.
      if (watch.isShared) this.#readSoon(id);
    }
  }

  /** Ends a follower. Resolves with whether nobody follows the request any more, on any gateway. */
  async forget(id: string, follower: Follower): Promise<boolean> {
    const watches = this.#watches.get(id) ?? new Set();
    const watch = [...watches].find((one) => one.follower === follower);
    if (!watch) return false;
    watches.delete(watch);
    if (watches.size === 0) this.#watches.delete(id);
    if (!watch.isShared) return true;
    const { redis, subscription } = this.#options;
    const channel = this.#streamOf(id);
    if (!(await subscription.unlisten(channel))) return false;
    const [, listeners] = await redis.pubsub('NUMSUB', channel);
    return Number(listeners) === 0;
  }

  onEvent(event: NodeEvent): void {
    const watches = this.#watches.get(event.id);
    if (!watches) return;
    if (!isEnd(event.state)) {
      for (const { follower } of watches) follower.hear(event);
    } else if (event.at === undefined) {
      this.#readSoon(event.id);
    } else {
      const end = { state: event.state ?? 'done', queuedMs: event.queued_ms };
      for (const { follower } of watches) follower.finish(end, event);
    }
  }

  /** Reads every follower's request again; after a gap what it has missed of its stream, too. */
  async check(isGap = false): Promise<void> {
    this.#hasGap ||= isGap;
    if (this.#checking) return;
    this.#checking = true;
    const hadGap = this.#hasGap;
    this.#hasGap = false;
    let isDone = false;
    try {
      const ids = [...this.#watches.keys()];
      const live = await this.#options.admission.inspectLive(ids);
      for (const id of ids) {
        if (!live.has(id)) await this.#read(id);
        for (const { follower } of this.#watches.get(id) ?? []) {
          if (hadGap || follower.hasBegun) follower.fallBehind();
        }
      }
      isDone = true;
    } catch (error) {
      this.#options.onError(error);
    } finally {
      this.#checking = false;
      this.#hasGap ||= hadGap && !isDone;
      for (const watches of this.#watches.values()) {
        for (const { follower, giveUpAtMs } of watches) {
          if (performance.now() > giveUpAtMs) follower.finish(lost);
        }
      }
    }
  }

  #watch(id: string, isShared: boolean, after?: EventId): Follower {
    const { redis } = this.#options;
    const stream = this.#streamOf(id);
    const read = (last: EventId) => readEntries(redis, stream, last);
    // What others follow may have begun before its channel was heard.
    const follower = new Follower(read, after, isShared);
    const watches = this.#watches.get(id) ?? new Set();
    watches.add({ follower, isShared, accepted: false, giveUpAtMs: Number.POSITIVE_INFINITY });
    this.#watches.set(id, watches);
    return follower;
  }

  #streamOf(id: string): string {
    return streamKey(this.#options.admission.domain, id);
  }

  /** However many follow it, it is read once. */
  #readSoon(id: string): void {
    if (this.#toRead.size === 0) {
      setImmediate(() => {
        const ids = this.#toRead;
        this.#toRead = new Set();
        for (const one of ids) void this.#read(one);
      });
    }
    this.#toRead.add(id);
  }

  async #read(id: string): Promise<void> {
    const watches = [...(this.#watches.get(id) ?? [])];
    const accepted = watches.filter((watch) => watch.accepted);
    try {
      const { request, ended } = await this.#options.admission.inspectRequest(id);
      if (request) return;
      if (!ended) {
        // Its submit is on the way, or Redis came back without it.
        for (const { follower } of accepted) follower.finish(lost);
        return;
      }
      const left = ended.admitted_at ?? ended.ended_at;
      const { state, code, message } = ended;
      const end = { state, code, message, queuedMs: left - ended.created_at };
      for (const { follower } of watches) follower.finish(end);
    } catch (error) {
      this.#options.onError(error);
    }
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
