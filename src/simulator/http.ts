/** The few things that are needed of HTTP: a bounded body, one header, one whole answer. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { errorTable, SluiceError } from '../errors.ts';
import type { Page } from './protocol.ts';

/**
 * The JSON body. Throws `payload_too_large` beyond `bodyBytes`, `invalid_request` when it is not
 * JSON, and whatever the socket says when the client leaves half-way.
 */
export async function readJson(request: IncomingMessage, bodyBytes: number): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bodyBytes) {
      throw new SluiceError('payload_too_large', `the body is larger than ${bodyBytes} bytes`);
    }
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (cause) {
    throw new SluiceError('invalid_request', 'the body is not valid JSON', { cause });
  }
}

export function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

export function sendPage(response: ServerResponse, status: number, page: Page): void {
  response.writeHead(status, {
    'content-type': page.contentType,
    'content-length': Buffer.byteLength(page.body),
  });
  response.end(page.body);
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
