import type { Redis } from 'ioredis';
import { type EventId, idText } from './entries.ts';

export interface AppenderOptions {
  /** The connection on which ends are reported: what is appended before an end comes before it. */
  readonly redis: Redis;
  /** How long events are collected before they are written together, ms. */
  readonly flushMs: number;
}

export interface WriterOptions {
  readonly id: string;
  readonly attempt: number;
  readonly streamKey: string;
  /** Where its followers listen. */
  readonly channel: string;
  /** How long the stream is kept should nobody end it, ms. */
  readonly ttlMs: number;
  /** Ends the attempt. */
  readonly signal: AbortSignal;
}

/** Longer ones are read from the stream: what is published fills the buffer of a slow gateway. */
const toldCharacters = 64 * 1024;
/** Characters of one entry; a longer event has one of its own. */
const entryCharacters = 64 * 1024;
/** How often the TTL of a stream is set, ms. */
const expireMs = 1_000;
/** Characters that wait to be written before the replica is read no further. */
const waitingCharacters = 1024 * 1024;

/**
 * Appends the answers that a worker's prompts stream. The first event of each is written at once; what
 * comes after is collected, and all that was collected goes out in one round trip to Redis.
 */
export class Appender {
  readonly #redis: Redis;
  readonly #flushMs: number;
  /** Written at the end of this turn of the event loop. */
  #urgent = new Set<AnswerWriter>();
  /** Written when the timer is over. */
  #due = new Set<AnswerWriter>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: AppenderOptions) {
    this.#redis = options.redis;
    this.#flushMs = options.flushMs;
  }

  open(options: WriterOptions): AnswerWriter {
    return new AnswerWriter(options, (writer, isUrgent) => this.#schedule(writer, isUrgent));
  }

  /** Whether anything has been appended to a stream. */
  async has(streamKey: string): Promise<boolean> {
    return (await this.#redis.exists(streamKey)) === 1;
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #schedule(writer: AnswerWriter, isUrgent: boolean): void {
    if (isUrgent) {
      if (this.#urgent.size === 0) setImmediate(() => this.#flush('urgent'));
      this.#urgent.add(writer);
    } else {
      this.#timer ??= setTimeout(() => this.#flush('due'), this.#flushMs);
      this.#due.add(writer);
    }
  }

  #flush(which: 'urgent' | 'due'): void {
    const writers = which === 'urgent' ? this.#urgent : this.#due;
    if (which === 'urgent') {
      this.#urgent = new Set();
    } else {
      this.#due = new Set();
      this.#timer = undefined;
    }
    const pipeline = this.#redis.pipeline();
    const told = new Map<string, string[]>();
    const writes: { writer: AnswerWriter; commands: number }[] = [];
    for (const writer of writers) {
      const entries = writer.take();
      const { streamKey, channel, id, ttlMs } = writer.options;
      for (const { at, json } of entries) {
        pipeline.xadd(streamKey, at, 'events', json);
        const events = json.length <= toldCharacters ? `,"events":${json}` : '';
        const list = told.get(channel) ?? [];
        list.push(`{"id":"${id}","at":"${at}"${events}}`);
        told.set(channel, list);
      }
      if (entries.length === 0) continue;
      // Should nobody end it, it goes away by itself; again, should Redis have lost it meanwhile.
      const expires = writer.mustExpire();
      if (expires) pipeline.pexpire(streamKey, ttlMs);
      writes.push({ writer, commands: entries.length + (expires ? 1 : 0) });
    }
    for (const [channel, list] of told) pipeline.publish(channel, `[${list.join(',')}]`);
    if (writes.length === 0) return;
    pipeline.exec().then(
      (results) => {
        let from = 0;
        for (const { writer, commands } of writes) {
          writer.written(failureIn(results?.slice(from, from + commands) ?? []));
          from += commands;
        }
      },
      (error: Error) => {
        for (const { writer } of writes) writer.written(error);
      },
    );
  }
}

/** The first failure that means that events are not in the stream. */
function failureIn(results: readonly [Error | null, unknown][]): Error | undefined {
  const failures = results.flatMap(([error]) => (error ? [error] : []));
  // It has this id, or a later one: a repeat after a lost reply, or a younger attempt. `finish` tells.
  return failures.find((error) => !error.message.includes('equal or smaller'));
}

/** Redis has not answered, or cannot yet. What was sent may be there: sent again, it changes nothing. */
function isPassing(error: Error): boolean {
  return error.name !== 'ReplyError' || /^(LOADING|READONLY|MASTERDOWN)/.test(error.message);
}

interface Taken {
  readonly at: string;
  readonly json: string;
}

/**
 * The events of one attempt, in order. One write is on its way at a time, and sent again until Redis
 * has it or the attempt is over, so an id that Redis knows already is an entry that is there.
 */
export class AnswerWriter {
  readonly options: WriterOptions;
  readonly #schedule: (writer: AnswerWriter, isUrgent: boolean) => void;
  #count = 0;
  #expiredAt = Number.NEGATIVE_INFINITY;
  #pending: string[] = [];
  /** Taken, and not known to be in Redis. */
  #taken: Taken[] = [];
  #isOnItsWay = false;
  #failure: Error | undefined;
  /** Writes that failed, for whatever reason. */
  #failures = 0;
  #change = Promise.withResolvers<void>();

  constructor(options: WriterOptions, schedule: (writer: AnswerWriter, isUrgent: boolean) => void) {
    this.options = options;
    this.#schedule = schedule;
    options.signal.addEventListener('abort', () => this.#wake(), { once: true });
  }

  /** Events that were given to it. */
  get count(): number {
    return this.#count;
  }

  /** Resolves when more may be given. @throws when Redis refuses it, and the signal's reason */
  async write(events: readonly string[]): Promise<void> {
    this.#check();
    if (events.length === 0) return;
    const isFirst = this.#count === 0;
    this.#count += events.length;
    this.#pending.push(...events);
    this.#schedule(this, isFirst);
    while (this.#waiting() > waitingCharacters) {
      this.#schedule(this, true);
      await this.#changed();
    }
  }

  /** What was not written yet, to go with the answer's end, and that end's id. @throws as write */
  async end(): Promise<{ events: readonly string[]; at: EventId }> {
    while (this.#taken.length > 0) await this.#changed();
    this.#check();
    const events = this.#pending;
    this.#pending = [];
    return { events, at: { attempt: this.options.attempt, count: this.#count + 1 } };
  }

  /** Of an attempt that came to nothing: resolves when its events are in Redis, or cannot be now. */
  async flush(): Promise<void> {
    while (this.#pending.length + this.#taken.length > 0 && !this.#failure) {
      this.#schedule(this, true);
      const failures = this.#failures;
      await this.#change.promise;
      if (this.#failures > failures) return;
    }
  }

  /** For the appender: entries to write now. */
  take(): readonly Taken[] {
    if (this.#isOnItsWay) return [];
    if (this.#taken.length === 0) {
      const events = this.#pending;
      this.#pending = [];
      this.#taken = this.#entriesOf(events);
    }
    this.#isOnItsWay = this.#taken.length > 0;
    return this.#taken;
  }

  /** For the appender: whether the stream's TTL is to be set, which is now and then. */
  mustExpire(): boolean {
    const now = performance.now();
    if (now - this.#expiredAt < expireMs) return false;
    this.#expiredAt = now;
    return true;
  }

  /** For the appender: how it went. */
  written(error: Error | undefined): void {
    this.#isOnItsWay = false;
    if (error) this.#failures += 1;
    if (!error || !isPassing(error)) {
      this.#failure ??= error;
      this.#taken = [];
    }
    const isLeft = this.#taken.length + this.#pending.length > 0;
    if (isLeft && !this.options.signal.aborted) this.#schedule(this, false);
    this.#wake();
  }

  #wake(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }

  #entriesOf(events: readonly string[]): Taken[] {
    let count = this.#count - events.length;
    return split(events).map((some) => {
      count += some.length;
      const at = idText({ attempt: this.options.attempt, count });
      return { at, json: JSON.stringify(some) };
    });
  }

  /** Characters that are not known to be in Redis. */
  #waiting(): number {
    let characters = 0;
    for (const event of this.#pending) characters += event.length;
    for (const { json } of this.#taken) characters += json.length;
    return characters;
  }

  async #changed(): Promise<void> {
    await this.#change.promise;
    this.#check();
  }

  #check(): void {
    this.options.signal.throwIfAborted();
    if (this.#failure) throw this.#failure;
  }
}

/** Splits events into lists of bounded length. */
function split(events: readonly string[]): string[][] {
  const lists: string[][] = [];
  let length = Number.POSITIVE_INFINITY;
  for (const event of events) {
    if (length + event.length > entryCharacters) {
      lists.push([]);
      length = 0;
    }
    lists.at(-1)?.push(event);
    length += event.length;
  }
  return lists;
}
