import type { FastifyError, FastifyReply } from 'fastify';
import { type ErrorCode, errorTable, SluiceError } from '../errors.ts';

/** Errors in the shape of the protocol that was called, with a stable code. */

/** Codes that are worth another try, which always carry Retry-After and Retry-After-Ms. */
const retryable: ReadonlySet<ErrorCode> = new Set([
  'queue_full',
  'rate_limited',
  'queue_timeout',
  'unavailable',
]);
const defaultRetryMs = 1_000;

export function sendError(reply: FastifyReply, path: string, error: SluiceError): FastifyReply {
  const ms = retryAfterMs(error);
  if (ms !== undefined) {
    // HTTP knows whole seconds (RFC 9110, 10.2.3); OpenAI's clients prefer the exact time.
    reply.header('retry-after', String(Math.ceil(ms / 1_000)));
    reply.header('retry-after-ms', String(ms));
  }
  // It ran for as long as it may, and would again: OpenAI's clients repeat every 5xx unless told so.
  if (error.code === 'expired') reply.header('x-should-retry', 'false');
  return reply.code(error.httpStatus ?? errorTable[error.code].http).send(errorBody(path, error));
}

/** When it is worth another try, whole ms; undefined for what is not. */
export function retryAfterMs(error: SluiceError): number | undefined {
  if (!retryable.has(error.code)) return undefined;
  return Math.max(1, Math.ceil(error.retryAfterMs ?? defaultRetryMs));
}

/** Ollama says `{error: text}`, OpenAI `{error: {message, type, param, code}}`; ours is OpenAI's. */
export function errorBody(path: string, error: SluiceError): object {
  if (path.startsWith('/api/')) return { error: error.message, code: error.code };
  const type = errorTable[error.code].http < 500 ? 'invalid_request_error' : 'server_error';
  const { message, code } = error;
  return { error: { message, type, param: error.param ?? null, code } };
}

/** What fastify, ioredis or we throw, as one of our codes. */
export function asSluiceError(error: unknown): SluiceError {
  if (error instanceof SluiceError) return error;
  const { code, message, statusCode } = error as Partial<FastifyError>;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return new SluiceError('payload_too_large', 'the body is larger than this gateway takes', {
      cause: error,
    });
  }
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new SluiceError('invalid_request', message ?? 'the request is not valid', {
      cause: error,
    });
  }
  if (isRedisAway(error)) {
    return new SluiceError('unavailable', 'Redis cannot be reached', { cause: error });
  }
  return new SluiceError('internal', 'something went wrong in the gateway', { cause: error });
}

/** ioredis tells by name and text only; a full Redis (OOM) is as good as none. */
function isRedisAway(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const text = `${error.name} ${error.message}`;
  const signs = ['MaxRetriesPerRequest', 'Command timed out', 'Connection is closed', 'ECONN'];
  const states = [
    'LOADING',
    'READONLY',
    'CLUSTERDOWN',
    'MASTERDOWN',
    'OOM ',
    "Stream isn't writeable",
  ];
  return [...signs, ...states].some((sign) => text.includes(sign));
}
