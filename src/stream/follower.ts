import { SluiceError } from '../errors.ts';
import type { Answer, Entry, EventId } from './entries.ts';
import { answerEntry, beginning, parseEventId } from './entries.ts';
import type { NodeEvent } from './subscription.ts';

/** How a request ended. Times in ms. */
export interface End {
  readonly state: string;
  readonly code?: string | undefined;
  readonly message?: string | undefined;
  readonly queuedMs?: number | undefined;
  /** Of one that is done, as long as it is kept; without its events, which came before. */
  readonly answer?: Answer | undefined;
}

/** What a follower is told, in order. */
export type Piece =
  | {
      readonly kind: 'state';
      readonly state: string;
      readonly attempt: number | undefined;
      readonly queuedMs: number | undefined;
    }
  /** JSON texts in the client's protocol. `last` is the id of the last; the first of a new attempt
   * begins the answer anew. */
  | { readonly kind: 'events'; readonly texts: readonly string[]; readonly last: EventId }
  | { readonly kind: 'end'; readonly end: End; readonly last: EventId };

/** Reads what a request's stream holds after an id. */
export type ReadEntries = (after: EventId) => Promise<{ entries: Entry[]; isLast: boolean }>;

/** Characters that wait for a slow client before they are left in Redis. */
const heldCharacters = 256 * 1024;

/**
 * Follows the answer of one request: in order, nothing lost, nothing twice. What is published comes
 * first; what was missed, or came faster than the client reads, is read from Redis, which keeps it all.
 * So however slow its client is, a follower holds a bounded part of the answer, and the replica's slot
 * is free when the replica is done.
 *
 * Invariant: everything up to `#last` was handed out or is in `#queue`, and as long as it is not
 * `#behind` everything that is published after `#last` comes through `hear`.
 */
export class Follower {
  readonly #read: ReadEntries;
  #last: EventId;
  #behind: boolean;
  /** Something was published while entries were read: they may lack it. */
  #missed = false;
  readonly #queue: Piece[] = [];
  #queued = 0;
  #end: End | undefined;
  #answer: Answer | undefined;
  #wake = Promise.withResolvers<void>();

  /** Goes on `after` an event. `isBehind`: with what is in Redis already. */
  constructor(read: ReadEntries, after: EventId = beginning, isBehind = true) {
    this.#read = read;
    this.#last = after;
    this.#behind = isBehind;
  }

  /** Whether some of the answer has come. */
  get hasBegun(): boolean {
    return this.#last.attempt > 0;
  }

  /**
   * The next piece; after an 'end' there is none. One at a time. Rejects when Redis cannot be read.
   * @throws SluiceError unavailable, when Redis came back without some of it
   */
  async next(): Promise<Piece> {
    for (;;) {
      const piece = this.#queue.shift();
      if (piece) {
        if (piece.kind === 'events') this.#queued -= lengthOf(piece.texts);
        return piece;
      }
      if (this.#behind) await this.#catchUp();
      else if (this.#end) return { kind: 'end', end: this.#endWithAnswer(), last: this.#last };
      else await this.#woken();
    }
  }

  /** Something was published: an entry of the stream, or a change of state that is no end. */
  hear(event: NodeEvent): void {
    if (event.state !== undefined) {
      const { state, attempt, queued_ms: queuedMs } = event;
      this.#push({ kind: 'state', state, attempt, queuedMs });
      return;
    }
    const id = event.at === undefined ? undefined : parseEventId(event.at);
    if (!id) return;
    if (this.#behind || !event.events || this.#queued > heldCharacters) this.fallBehind();
    else this.#take({ id, events: event.events });
  }

  /** It has ended. `event`: as it was published, when that was heard. */
  finish(end: End, event?: NodeEvent): void {
    if (this.#end) return;
    const id = event?.at === undefined ? undefined : parseEventId(event.at);
    const entry = id && event?.answer !== undefined ? answerEntry(id, event.answer) : undefined;
    this.#end = end;
    if (!this.#behind && entry) this.#take(entry);
    else this.fallBehind();
    this.#rouse();
  }

  /** What attempts before this one have said counts no more. Only before anything was handed out. */
  startAt(attempt: number): void {
    if (attempt <= this.#last.attempt) return;
    this.#queue.length = 0;
    this.#queued = 0;
    this.#last = { attempt, count: 0 };
    this.fallBehind();
  }

  /** Messages may have been lost: goes on from what is in Redis. */
  fallBehind(): void {
    this.#behind = true;
    this.#missed = true;
    this.#rouse();
  }

  async #catchUp(): Promise<void> {
    this.#missed = false;
    const { entries, isLast } = await this.#read(this.#last);
    // Whatever was published before the read is in it, so nothing can be missing between.
    this.#behind = false;
    for (const entry of entries) this.#take(entry, true);
    if (!isLast || this.#missed) this.#behind = true;
  }

  /** The next entry; what is before its first new event must have been taken. */
  #take(entry: Entry, isRead = false): void {
    const { id, events, answer } = entry;
    const own = id.count - (answer ? 1 : 0);
    const isNew = id.attempt > this.#last.attempt;
    if (!isNew && (id.attempt < this.#last.attempt || id.count <= this.#last.count)) return;
    const seen = isNew ? 0 : this.#last.count;
    const unseen = own - seen;
    if (unseen > events.length) {
      if (isRead) throw new SluiceError('unavailable', 'Redis has lost a part of the answer');
      this.fallBehind();
      return;
    }
    this.#last = id;
    this.#answer = answer;
    const texts = unseen < events.length ? events.slice(events.length - unseen) : events;
    if (texts.length > 0) {
      this.#push({ kind: 'events', texts, last: { attempt: id.attempt, count: own } });
    }
  }

  #push(piece: Piece): void {
    this.#queue.push(piece);
    if (piece.kind === 'events') this.#queued += lengthOf(piece.texts);
    this.#rouse();
  }

  #endWithAnswer(): End {
    return { ...this.#end, state: this.#end?.state ?? 'lost', answer: this.#answer };
  }

  #rouse(): void {
    this.#wake.resolve();
  }

  async #woken(): Promise<void> {
    await this.#wake.promise;
    this.#wake = Promise.withResolvers();
  }
}

function lengthOf(texts: readonly string[]): number {
  let length = 0;
  for (const text of texts) length += text.length;
  return length;
}
