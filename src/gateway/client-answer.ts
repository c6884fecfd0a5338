import type { FastifyReply } from 'fastify';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { framingFor } from '../protocols/index.ts';
import type { End, Piece } from '../stream/index.ts';
import { asSluiceError, errorBody } from './answers.ts';
import { type EventStream, openEventStream, sendWhole } from './event-stream.ts';
import type { OpenPrompt } from './open-prompt.ts';
import { Pending } from './pending.ts';
import type { Places } from './places.ts';

/** A prompt that was taken in, and the client that waits for its answer. */
export interface Answering {
  readonly open: OpenPrompt;
  readonly reply: FastifyReply;
  readonly path: string;
  /** The client's connection is gone. */
  readonly gone: AbortSignal;
  /** This gateway can wait for its clients no longer. */
  readonly closing: AbortSignal;
  readonly timeouts: Config['timeouts'];
  readonly places: Places;
  /** Told of a failure that the client saw in its stream: it had its status already. */
  readonly onFailure: (error: unknown) => void;
}

/** Answers in one piece. @throws SluiceError with the code under which the request ended */
export async function answerWhole(answering: Answering): Promise<FastifyReply> {
  const { open, reply, timeouts, onFailure } = answering;
  return settled(answering, async () => {
    for (;;) {
      const piece = await open.next();
      if (piece.kind !== 'end') continue;
      const { answer, queuedMs = 0 } = piece.end;
      if (answer?.body === undefined) throw errorOf(answering, piece.end);
      reply.header('sluice-queue-ms', String(queuedMs));
      const whole = { ...answer, body: answer.body };
      return sendWhole(reply, whole, timeouts.slowReaderMs, onFailure);
    }
  });
}

/**
 * Answers with a stream. Until its first token, or until the client has waited for so long that it is
 * to hear something, every other end is told by the HTTP status, which clients know to try again after;
 * then within the stream, as the protocol does it. @throws SluiceError as long as there is no status
 */
export async function answerStream(answering: Answering): Promise<FastifyReply> {
  return settled(answering, () => new StreamedAnswer(answering).run());
}

/** Runs an answer to its end; when the client is gone first, so is its prompt. */
async function settled(
  { open, gone, closing }: Answering,
  run: () => Promise<FastifyReply>,
): Promise<FastifyReply> {
  const leave = () => void open.abandon().catch(() => undefined);
  if (gone.aborted || closing.aborted) leave();
  for (const signal of [gone, closing]) signal.addEventListener('abort', leave);
  try {
    const reply = await run();
    await open.close('done');
    return reply;
  } catch (error) {
    // When Redis did not answer it may still run, and nobody waits for it any more.
    if (error instanceof SluiceError) await open.close(error.code);
    else leave();
    throw error;
  } finally {
    for (const signal of [gone, closing]) signal.removeEventListener('abort', leave);
  }
}

/** The error for an end that is none of an answer. */
function errorOf({ open, closing }: Answering, end: End): SluiceError {
  if (!closing.aborted) return open.errorOf(end);
  return new SluiceError('unavailable', 'this gateway is stopping');
}

class StreamedAnswer {
  readonly #answering: Answering;
  #stream: EventStream | undefined;
  #queuedMs: number | undefined;
  /** The attempt whose events the client has; 0 before the first. */
  #attempt = 0;

  constructor(answering: Answering) {
    this.#answering = answering;
  }

  async run(): Promise<FastifyReply> {
    const { open, reply, timeouts } = this.#answering;
    let next: Pending<Piece> | undefined;
    try {
      for (;;) {
        next ??= new Pending(open.next());
        const piece = await next.within(timeouts.keepAliveMs);
        if (piece === 'late') {
          await this.#keepAlive();
          continue;
        }
        next = undefined;
        if (piece.kind === 'state') this.#hear(piece);
        else if (piece.kind === 'events') await this.#send(piece.texts, piece.last.attempt);
        else return await this.#end(piece.end);
      }
    } catch (error) {
      if (!this.#stream) throw error;
      await this.#fail(this.#stream, error);
      return reply;
    }
  }

  #hear({ state, attempt, queuedMs }: Extract<Piece, { kind: 'state' }>): void {
    this.#queuedMs = queuedMs ?? this.#queuedMs;
    if (state === 'running' && attempt !== undefined) this.#mustBeTheSame(attempt);
  }

  /** A client that has the beginning of an answer cannot be given another one. */
  #mustBeTheSame(attempt: number): void {
    if (this.#attempt === 0 || this.#attempt === attempt) return;
    const message = 'its worker was lost after it had begun to answer';
    throw new SluiceError('upstream_failed', message);
  }

  async #send(texts: readonly string[], attempt: number): Promise<void> {
    this.#mustBeTheSame(attempt);
    this.#attempt = attempt;
    const { path } = this.#answering;
    await this.#begin().write(texts.map((text) => framingFor(path).event(text)));
  }

  async #end(end: End): Promise<FastifyReply> {
    const { reply, path, timeouts, onFailure } = this.#answering;
    const { answer } = end;
    if (!answer) throw errorOf(this.#answering, end);
    if (answer.body !== undefined && !this.#stream) {
      reply.header('sluice-queue-ms', String(end.queuedMs ?? 0));
      const whole = { ...answer, body: answer.body };
      return sendWhole(reply, whole, timeouts.slowReaderMs, onFailure);
    }
    this.#queuedMs ??= end.queuedMs;
    const framing = framingFor(path);
    const stream = this.#begin();
    // A body: the replica's refusal, in the client's protocol already, after the status was sent.
    const last = answer.body === undefined ? framing.end : framing.event(answer.body);
    await stream.end([last]);
    return reply;
  }

  /** Says in the stream what went wrong, and ends it, so that nobody takes it for complete. */
  async #fail(stream: EventStream, error: unknown): Promise<void> {
    const { open, path, onFailure } = this.#answering;
    const told = asSluiceError(error);
    onFailure(error);
    const text = JSON.stringify(errorBody(path, told));
    await stream.end([framingFor(path).event(text)]).catch(() => undefined);
    // The client has heard of its end: nobody waits for what may still run.
    await open.abandon(told.code).catch(() => undefined);
  }

  async #keepAlive(): Promise<void> {
    const { open, path, places } = this.#answering;
    const place = this.#attempt === 0 ? await places.ask(open.id) : undefined;
    const comment = place
      ? `waiting at position ${place.position}, ${place.ahead} ahead, ` +
        `estimated start in ${place.estimated_start_ms} ms`
      : 'running';
    await this.#begin().write([framingFor(path).keepAlive(comment)]);
  }

  /** The stream; its status is sent when it is first asked for. */
  #begin(): EventStream {
    const { reply, path, timeouts } = this.#answering;
    if (this.#stream) return this.#stream;
    if (this.#queuedMs !== undefined) reply.header('sluice-queue-ms', String(this.#queuedMs));
    this.#stream = openEventStream(reply, framingFor(path).contentType, timeouts.slowReaderMs);
    return this.#stream;
  }
}
