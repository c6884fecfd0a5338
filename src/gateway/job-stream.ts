import type { FastifyReply } from 'fastify';
import type { Place, RequestView } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { serverSentEvents } from '../protocols/index.ts';
import { type End, type EventId, idText, type Piece, parseEventId } from '../stream/index.ts';
import { type EventStream, openEventStream } from './event-stream.ts';
import { Pending } from './pending.ts';
import type { Places } from './places.ts';
import { endError } from './rejections.ts';
import type { Waiters } from './waiters.ts';

/**
 * A job as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), from any
 * gateway, also for a client that comes back. Events: `position` while it waits, `running`, then the
 * answer: of one that streams messages without a name, each with an id; of another one `answer`. At
 * last `done` or `failed`. `restart`: another attempt begins, and what came before counts no more.
 */
export interface JobFollowing {
  readonly id: string;
  readonly view: RequestView;
  readonly reply: FastifyReply;
  /** The client's connection is gone. */
  readonly gone: AbortSignal;
  /** This gateway can wait for its clients no longer. */
  readonly closing: AbortSignal;
  readonly waiters: Waiters;
  readonly places: Places;
  readonly timeouts: Config['timeouts'];
}

/** What `Last-Event-ID` says: an event, or that the client has seen the end. @throws SluiceError */
export function readLastEventId(text: string | undefined): EventId | 'end' | undefined {
  if (text === undefined || text === '') return undefined;
  const id = parseEventId(text);
  if (id) return id;
  if (text === endId) return 'end';
  const param = 'Last-Event-ID';
  throw new SluiceError('invalid_request', `${param} must be the id of an event of this stream`, {
    param,
  });
}

/** In place of an attempt: one that Redis does not know (any more). */
const lost = -1;
/** Id of the last event: who comes back with it is told by a 204 not to come again. */
const endId = 'end';

export async function followJob(
  following: JobFollowing,
  after: EventId | undefined,
): Promise<FastifyReply> {
  const { id, reply, waiters, timeouts, gone, closing } = following;
  const { follower, from } = await waiters.followShared(id, after);
  // Whoever is still there comes back, to another gateway.
  const leave = () => reply.raw.destroy();
  const stop = () => follower.finish({ state: 'cancelled' });
  gone.addEventListener('abort', stop);
  closing.addEventListener('abort', leave);
  let stream: EventStream | undefined;
  try {
    waiters.accepted(id);
    stream = openEventStream(reply, serverSentEvents.contentType, timeouts.slowReaderMs);
    await new JobStream(following, stream, after, from).run(() => follower.next());
  } catch (error) {
    // Where Redis is away, a client that is still there comes back.
    if (error instanceof SluiceError) await stream?.end([failed('failed', error)]).catch(() => {});
  } finally {
    gone.removeEventListener('abort', stop);
    closing.removeEventListener('abort', leave);
    // Nobody else closes a connection whose client has closed its side.
    if (!reply.raw.writableFinished) reply.raw.destroy();
    await waiters.forget(id, follower).catch(() => undefined);
  }
  return reply;
}

class JobStream {
  readonly #following: JobFollowing;
  readonly #stream: EventStream;
  /** The attempt whose events the client has; 0 before the first. */
  #attempt: number;
  /** The event that it has seen, and Redis knows. */
  readonly #seen: EventId | undefined;
  #lastPosition = '';

  constructor(
    following: JobFollowing,
    stream: EventStream,
    after: EventId | undefined,
    from: EventId,
  ) {
    this.#following = following;
    this.#stream = stream;
    // What it has seen and Redis does not know counts no more.
    this.#attempt = after === from ? from.attempt : after ? lost : 0;
    this.#seen = after === from ? from : undefined;
  }

  async run(nextPiece: () => Promise<Piece>): Promise<void> {
    const { view, timeouts, gone } = this.#following;
    if (view.request?.state === 'running') await this.#running(view.request.attempt);
    else if (view.position !== undefined) await this.#tellPlace(view);
    let next: Pending<Piece> | undefined;
    for (;;) {
      next ??= new Pending(nextPiece());
      const piece = await next.within(timeouts.keepAliveMs);
      if (gone.aborted) return;
      if (piece === 'late') {
        await this.#tellPosition();
        continue;
      }
      next = undefined;
      if (piece.kind === 'state') await this.#tellState(piece);
      else if (piece.kind === 'events') await this.#tellEvents(piece.texts, piece.last);
      else return await this.#tellEnd(piece.end, piece.last);
    }
  }

  async #tellState(piece: Extract<Piece, { kind: 'state' }>): Promise<void> {
    if (piece.state === 'running') await this.#running(piece.attempt);
  }

  async #running(attempt: number | undefined): Promise<void> {
    await this.#stream.write([event({ name: 'running', data: { state: 'running', attempt } })]);
  }

  async #tellEvents(texts: readonly string[], last: EventId): Promise<void> {
    const said = this.#restarted(last);
    const first = last.count - texts.length + 1;
    for (const [index, data] of texts.entries()) {
      const id = idText({ attempt: last.attempt, count: first + index });
      said.push(event({ id, text: data }));
    }
    await this.#stream.write(said);
  }

  #restarted({ attempt }: EventId): string[] {
    const isAnother = this.#attempt !== 0 && attempt !== this.#attempt;
    this.#attempt = attempt;
    return isAnother ? [event({ name: 'restart', data: { attempt } })] : [];
  }

  async #tellEnd(end: End, last: EventId): Promise<void> {
    const said: string[] = [];
    // Nothing has come after what it has seen: that was the answer.
    const hasSeenAll = this.#seen !== undefined && idText(this.#seen) === idText(last);
    if (end.state === 'done' && (end.answer || hasSeenAll)) {
      const { status, body, contentType } = end.answer ?? {};
      if (body !== undefined) {
        said.push(...this.#restarted(last));
        const data = { status, content_type: contentType, body };
        said.push(event({ id: idText(last), name: 'answer', data }));
      }
      said.push(event({ id: endId, name: 'done', data: { state: 'done' } }));
    } else {
      said.push(failed(end.state, endError(end)));
    }
    await this.#stream.end(said);
  }

  /** Where it waits, when that has changed; else a comment, which keeps the connection open. */
  async #tellPosition(): Promise<void> {
    const { id, places } = this.#following;
    await this.#tellPlace(this.#attempt <= 0 ? await places.ask(id) : undefined);
  }

  async #tellPlace(place: Partial<Place> = {}): Promise<void> {
    const { position, ahead, estimated_start_ms } = place;
    const nothingNew = serverSentEvents.keepAlive('keep-alive');
    if (position === undefined) return await this.#stream.write([nothingNew]);
    const data = { state: 'waiting', position, ahead, estimated_start_ms };
    const text = JSON.stringify(data);
    const isNews = text !== this.#lastPosition;
    this.#lastPosition = text;
    await this.#stream.write([isNews ? event({ name: 'position', data }) : nothingNew]);
  }
}

function failed(state: string, { code, message }: SluiceError): string {
  return event({ id: endId, name: 'failed', data: { state, error: { code, message } } });
}

/** One event, with its id and name before its data. */
function event(parts: {
  readonly id?: string;
  readonly name?: string;
  readonly data?: object;
  readonly text?: string;
}): string {
  const { id, name, data, text = JSON.stringify(data) } = parts;
  const before = `${id === undefined ? '' : `id: ${id}\n`}${name === undefined ? '' : `event: ${name}\n`}`;
  return `${before}${serverSentEvents.event(text)}`;
}
