/** The few things that are needed of HTTP: a bounded body, one header, one whole answer. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { errorTable, SluiceError } from '../errors.ts';
import type { Page } from './protocol.ts';

/**
 * The body as text. Throws `payload_too_large` beyond `bodyBytes`, and whatever the socket says when
 * the client leaves half-way.
 */
export async function readBody(request: IncomingMessage, bodyBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bodyBytes) {
      throw new SluiceError('payload_too_large', `the body is larger than ${bodyBytes} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** A body as JSON, or `invalid_request`. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new SluiceError('invalid_request', 'the body is not valid JSON', { cause });
  }
}

export function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

export function sendPage(response: ServerResponse, status: number, page: Page): void {
  // As bytes: Node would send the headers before a short text in the text's encoding, not in Latin-1.
  const body = Buffer.from(page.body);
  response.writeHead(status, { 'content-type': page.contentType, 'content-length': body.length });
  response.end(body);
}

/** Answer with an error; `page` is its body in the protocol's own shape. */
export function sendError(response: ServerResponse, error: SluiceError, page: Page): void {
  if (error.retryAfterMs !== undefined) {
    response.setHeader('retry-after', Math.ceil(error.retryAfterMs / 1000));
  }
  // The rest of a body that is too large is not read, so the connection is of no further use.
  if (error.code === 'payload_too_large') response.setHeader('connection', 'close');
  sendPage(response, errorTable[error.code].http, page);
}
