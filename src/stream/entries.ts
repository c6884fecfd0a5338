import type { Redis } from 'ioredis';

/**
 * What a request's stream in Redis holds: the events of its answer as they come, then the answer's
 * end. Entries have ids of their own in place of Redis' clock: `2-12` is up to the 12th event of the
 * second attempt. So Redis itself refuses what an older attempt appends after a younger one, and what
 * is appended twice; a reader sees by the numbers that it missed something; and an id says where a
 * client that comes back goes on, also in the middle of an entry.
 */
export interface EventId {
  readonly attempt: number;
  /** Events of the attempt up to here. */
  readonly count: number;
}

/** Before everything. */
export const beginning: EventId = { attempt: 0, count: 0 };

/** The end of an answer, as it is kept: all of it, or what came after the last entry of events. */
export interface Answer {
  /** HTTP status. */
  readonly status: number;
  readonly contentType: string;
  /** A whole answer. */
  readonly body?: string | undefined;
  /** The last events of a streamed one, JSON texts in the client's protocol. */
  readonly events?: readonly string[] | undefined;
}

/** One entry of a stream. */
export interface Entry {
  /** Of its last event; of an answer, one more than that. */
  readonly id: EventId;
  readonly events: readonly string[];
  /** The answer's end; its events are in `events`. */
  readonly answer?: Answer | undefined;
}

export function idText(id: EventId): string {
  return `${id.attempt}-${id.count}`;
}

export function isAfter(id: EventId, other: EventId): boolean {
  return id.attempt === other.attempt ? id.count > other.count : id.attempt > other.attempt;
}

/** Reads `2-12`; undefined for what is no id. */
export function parseEventId(text: string): EventId | undefined {
  const parts = /^(\d{1,9})-(\d{1,15})$/.exec(text);
  return parts ? { attempt: Number(parts[1]), count: Number(parts[2]) } : undefined;
}

export function encodeAnswer(answer: Answer): string {
  return JSON.stringify(answer);
}

/** An answer as it is kept or told, with the id of its entry. */
export function answerEntry(id: EventId, text: string): Entry {
  const answer = JSON.parse(text) as Answer;
  return { id, events: answer.events ?? [], answer };
}

/** Entries that are read at once. */
const pageEntries = 64;

/** Entries after an id, oldest first; `isLast` when there were no more. */
export async function readEntries(
  redis: Redis,
  streamKey: string,
  after: EventId,
): Promise<{ entries: Entry[]; isLast: boolean }> {
  const from = after.attempt === 0 ? '-' : `(${idText(after)}`;
  const page = await redis.xrange(streamKey, from, '+', 'COUNT', pageEntries);
  return { entries: page.map(parseEntry), isLast: page.length < pageEntries };
}

/** Id of the last entry so far. */
export async function lastEvent(redis: Redis, streamKey: string): Promise<EventId> {
  const [last] = await redis.xrevrange(streamKey, '+', '-', 'COUNT', 1);
  return (last && parseEventId(last[0])) ?? beginning;
}

/** The answer of a request that is done, with all its events; undefined when it is not kept, or not whole. */
export async function readAnswer(redis: Redis, streamKey: string): Promise<Answer | undefined> {
  const [last] = await redis.xrevrange(streamKey, '+', '-', 'COUNT', 1);
  const end = last && parseEntry(last);
  if (!end?.answer || end.answer.body !== undefined) return end?.answer;
  const earlier = await redis.xrange(streamKey, `${end.id.attempt}-0`, `(${idText(end.id)}`);
  const events = [...earlier.flatMap((entry) => parseEntry(entry).events), ...end.events];
  return events.length === end.id.count - 1 ? { ...end.answer, events } : undefined;
}

function parseEntry([id, [kind = '', text = '']]: [string, string[]]): Entry {
  const eventId = parseEventId(id);
  if (!eventId) throw new Error(`not an entry of an answer: ${id}`);
  if (kind === 'answer') return answerEntry(eventId, text);
  return { id: eventId, events: JSON.parse(text) as string[] };
}
