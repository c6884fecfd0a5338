import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
import { SluiceError } from '../errors.ts';

/** Bytes that are given to a connection at once. */
const pieceBytes = 16 * 1024;

/** Longer answers are written piece by piece, so that one that nobody takes can be told from a slow one. */
const atOnceCharacters = 64 * 1024;

/** Answers in one piece; whoever takes nothing of a long one for `slowMs` is cut off. */
export async function sendWhole(
  reply: FastifyReply,
  answer: { readonly status: number; readonly contentType: string; readonly body: string },
  slowMs: number,
  onCut: (error: unknown) => void = () => {},
): Promise<FastifyReply> {
  const { status, contentType, body } = answer;
  if (body.length <= atOnceCharacters) return reply.code(status).type(contentType).send(body);
  reply.code(status).hijack();
  reply.raw.writeHead(status, {
    ...(reply.getHeaders() as Record<string, string>),
    'content-type': contentType,
    'content-length': Buffer.byteLength(body),
  });
  await new EventStream(reply.raw, slowMs).end([body]).catch(onCut);
  return reply;
}

/** Sends the status of a stream, and its head. From here on the connection is ours, not fastify's. */
export function openEventStream(
  reply: FastifyReply,
  contentType: string,
  slowMs: number,
): EventStream {
  reply.hijack();
  reply.raw.writeHead(200, {
    ...(reply.getHeaders() as Record<string, string>),
    'content-type': contentType,
    'cache-control': 'no-cache',
    // nginx and those like it hold a stream back otherwise.
    'x-accel-buffering': 'no',
  });
  return new EventStream(reply.raw, slowMs);
}

/**
 * Writes to a client no faster than it reads. What it does not take stays in Redis; a client that takes
 * nothing for `slowMs` is cut off.
 */
export class EventStream {
  readonly #raw: ServerResponse;
  readonly #slowMs: number;

  constructor(raw: ServerResponse, slowMs: number) {
    this.#raw = raw;
    this.#slowMs = slowMs;
  }

  /** Resolves when the client has taken it, or its connection has room. @throws when it is gone */
  async write(texts: readonly string[]): Promise<void> {
    if (texts.length > 0) await this.#send(Buffer.from(texts.join('')));
  }

  /** Writes what is left and resolves when the client has all of it. @throws when it is gone */
  async end(texts: readonly string[]): Promise<void> {
    await this.write(texts);
    if (this.#raw.destroyed) throw gone();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#raw.once('close', resolve);
    this.#raw.end(resolve);
    await this.#orCut(promise);
  }

  async #send(bytes: Buffer): Promise<void> {
    if (this.#raw.destroyed) throw gone();
    for (let from = 0; from < bytes.length; from += pieceBytes) {
      const { promise, resolve } = Promise.withResolvers<void>();
      if (this.#raw.write(bytes.subarray(from, from + pieceBytes))) continue;
      this.#raw.once('drain', resolve);
      this.#raw.once('close', resolve);
      try {
        await this.#orCut(promise);
      } finally {
        this.#raw.off('drain', resolve);
        this.#raw.off('close', resolve);
      }
      if (this.#raw.destroyed) throw gone();
    }
  }

  async #orCut(promise: Promise<void>): Promise<void> {
    const cut = Promise.withResolvers<void>();
    const timer = setInterval(() => {
      const { socket, req } = this.#raw;
      // Without one it stands behind another answer on its connection, whose client is to be slow.
      if (!socket && !req.socket.destroyed) return;
      this.#raw.destroy();
      cut.resolve();
    }, this.#slowMs);
    await Promise.race([promise, cut.promise]).finally(() => clearInterval(timer));
  }
}

function gone(): SluiceError {
  return new SluiceError('cancelled', 'the client went away');
}
