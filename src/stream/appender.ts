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
}

/** Longer ones are read from the stream: what is published fills the buffer of a slow gateway. */
const toldCharacters = 64 * 1024;
/** Characters of one entry; a longer event has one of its own. */
const entryCharacters = 64 * 1024;
/** Characters that wait to be written before the replica is read no further. */
const waitingCharacters = 1024 * 1024;

/**
 * Appends the answers that a worker's prompts stream. The first event of each is written at once; what
 * comes after is collected, and all that was collected goes out in one round trip to Redis.
 */
export class Appender {
  readonly #redis: Redis;
  readonly #flushMs: number;
  #due = new Set<AnswerWriter>();
  #timer: NodeJS.Timeout | undefined;
  #isSoon = false;

  constructor(options: AppenderOptions) {
    this.#redis = options.redis;
    this.#flushMs = options.flushMs;
  }

  open(options: WriterOptions): AnswerWriter {
    return new AnswerWriter(options, (writer, isUrgent) => this.#schedule(writer, isUrgent));
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #schedule(writer: AnswerWriter, isUrgent: boolean): void {
    this.#due.add(writer);
    if (isUrgent && !this.#isSoon) {
      this.#isSoon = true;
      setImmediate(() => this.#flush());
    }
    this.#timer ??= setTimeout(() => this.#flush(), this.#flushMs);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isSoon = false;
    const writers = this.#due;
    if (writers.size === 0) return;
    this.#due = new Set();
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
      // Each time: a stream that nobody ends goes away by itself.
      if (entries.length > 0) pipeline.pexpire(streamKey, ttlMs);
      writes.push({ writer, commands: entries.length > 0 ? entries.length + 1 : 0 });
    }
    for (const [channel, list] of told) pipeline.publish(channel, `[${list.join(',')}]`);
    const done = pipeline.exec();
    let from = 0;
    for (const { writer, commands } of writes) {
      const [first, end] = [from, from + commands];
      from = end;
      writer.written(done.then((results) => failureIn(results?.slice(first, end) ?? [])));
    }
  }
}

/** The first failure that means that events are not in the stream. */
function failureIn(results: readonly [Error | null, unknown][]): Error | undefined {
  const failures = results.flatMap(([error]) => (error ? [error] : []));
  // It has this id, or a later one: a repeat after a lost reply, or a younger attempt. `finish` tells.
  return failures.find((error) => !error.message.includes('equal or smaller'));
}

/** The events of one attempt, in order. */
export class AnswerWriter {
  readonly options: WriterOptions;
  readonly #schedule: (writer: AnswerWriter, isUrgent: boolean) => void;
  #count = 0;
  #pending: string[] = [];
  #waiting = 0;
  #hasFlushed = false;
  #writing: Promise<void> = Promise.resolve();
  #flushed = Promise.withResolvers<void>();
  #failure: Error | undefined;

  constructor(options: WriterOptions, schedule: (writer: AnswerWriter, isUrgent: boolean) => void) {
    this.options = options;
    this.#schedule = schedule;
  }

  /** Events that were given to it. */
  get count(): number {
    return this.#count;
  }

  /** Resolves when more may be given. @throws when what was given before could not be written. */
  async write(events: readonly string[]): Promise<void> {
    if (this.#failure) throw this.#failure;
    if (events.length === 0) return;
    this.#count += events.length;
    this.#pending.push(...events);
    for (const event of events) this.#waiting += event.length;
    this.#schedule(this, !this.#hasFlushed);
    this.#hasFlushed = true;
    if (this.#waiting <= waitingCharacters) return;
    this.#schedule(this, true);
    await this.#flushed.promise;
    await this.#writing;
    if (this.#failure) throw this.#failure;
  }

  /** What was not written yet, to go with the answer's end, and that end's id. @throws as write */
  async end(): Promise<{ events: readonly string[]; at: EventId }> {
    const events = this.#pending;
    this.#pending = [];
    await this.#writing;
    if (this.#failure) throw this.#failure;
    return { events, at: { attempt: this.options.attempt, count: this.#count + 1 } };
  }

  /** For the appender: entries to write now. */
  take(): { at: string; json: string }[] {
    const events = this.#pending;
    this.#pending = [];
    let count = this.#count - events.length;
    return entriesOf(events).map((some) => {
      count += some.length;
      const at = idText({ attempt: this.options.attempt, count });
      return { at, json: JSON.stringify(some) };
    });
  }

  /** For the appender: what was taken is on its way. */
  written(failure: Promise<Error | undefined>): void {
    this.#writing = Promise.all([this.#writing, failure]).then(
      ([, error]) => {
        this.#failure ??= error;
        this.#waiting = this.#pending.reduce((sum, event) => sum + event.length, 0);
      },
      (error: Error) => {
        this.#failure ??= error;
      },
    );
    this.#flushed.resolve();
    this.#flushed = Promise.withResolvers();
  }
}

/** Splits events into lists of bounded length. */
function entriesOf(events: readonly string[]): string[][] {
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
