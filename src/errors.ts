/**
 * Coded errors: callers branch on the code, people read the message, and one table turns a code
 * into the HTTP and the gRPC status. Imports nothing of ours.
 */

/** Every way in which Sluice refuses or fails a request. Stable: clients may depend on them. */
export type ErrorCode =
  | 'queue_full'
  | 'rate_limited'
  | 'queue_timeout'
  | 'unavailable'
  | 'invalid_request'
  | 'unknown_model'
  | 'unknown_job'
  | 'unknown_flow'
  | 'not_found'
  | 'method_not_allowed'
  | 'unauthorized'
  | 'forbidden'
  | 'payload_too_large'
  | 'cancelled'
  | 'expired'
  | 'upstream_failed'
  | 'idempotency_conflict'
  | 'in_use'
  | 'flow_over'
  | 'internal';

/**
 * The status of each code, in HTTP (RFC 9110; 499 is nginx's "client closed request") and in gRPC
 * (https://grpc.io/docs/guides/status-codes/).
 */
export const errorTable: Readonly<
  Record<ErrorCode, { readonly http: number; readonly grpc: number }>
> = Object.freeze({
  queue_full: { http: 429, grpc: 8 }, // RESOURCE_EXHAUSTED
  rate_limited: { http: 429, grpc: 8 },
  queue_timeout: { http: 504, grpc: 4 }, // DEADLINE_EXCEEDED
  unavailable: { http: 503, grpc: 14 }, // UNAVAILABLE: no Redis, or no replica
  invalid_request: { http: 400, grpc: 3 }, // INVALID_ARGUMENT
  unknown_model: { http: 404, grpc: 5 }, // NOT_FOUND
  unknown_job: { http: 404, grpc: 5 },
  unknown_flow: { http: 404, grpc: 5 },
  not_found: { http: 404, grpc: 5 },
  method_not_allowed: { http: 405, grpc: 12 }, // UNIMPLEMENTED
  unauthorized: { http: 401, grpc: 16 }, // UNAUTHENTICATED
  forbidden: { http: 403, grpc: 7 }, // PERMISSION_DENIED
  payload_too_large: { http: 413, grpc: 8 }, // as gRPC's own message size limit answers
  cancelled: { http: 499, grpc: 1 }, // CANCELLED
  expired: { http: 504, grpc: 4 }, // ran longer than the policy's max inflight duration
  upstream_failed: { http: 502, grpc: 14 }, // 502 -> UNAVAILABLE, as gRPC maps plain HTTP answers
  idempotency_conflict: { http: 422, grpc: 6 }, // ALREADY_EXISTS: same key, other request
  in_use: { http: 409, grpc: 9 }, // FAILED_PRECONDITION: requests wait or run under it
  flow_over: { http: 409, grpc: 9 }, // its lease has ended: whoever still works on it should stop
  internal: { http: 500, grpc: 13 }, // INTERNAL
});

/** What a {@link SluiceError} may carry beside its code and message. */
export interface SluiceErrorOptions {
  /** When it is worth trying again, in milliseconds from now. */
  readonly retryAfterMs?: number | undefined;
  /** The field, header or label that was wrong, as the caller knows it. */
  readonly param?: string | undefined;
  /** HTTP status in place of the code's own, where a policy names one. */
  readonly httpStatus?: number | undefined;
  /** The error that led to this one. */
  readonly cause?: unknown;
}

/** An error of the world, not of our code: it has a code that callers branch on. */
export class SluiceError extends Error {
  override readonly name: string = 'SluiceError';
  readonly code: ErrorCode;
  /** When it is worth trying again, in milliseconds from now. */
  readonly retryAfterMs: number | undefined;
  /** The field, header or label that was wrong, as the caller knows it. */
  readonly param: string | undefined;
  /** HTTP status in place of the code's own, where a policy names one. */
  readonly httpStatus: number | undefined;

  constructor(code: ErrorCode, message: string, options: SluiceErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.code = code;
    this.retryAfterMs = options.retryAfterMs;
    this.param = options.param;
    this.httpStatus = options.httpStatus;
  }

  /** The same, as an error of its own. */
  copy(): SluiceError {
    return new SluiceError(this.code, this.message, this);
  }
}
