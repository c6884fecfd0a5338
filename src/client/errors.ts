/**
 * A request that the gateway refused or that did not reach it. Branch on `code`: a gateway's own
 * (`invalid_request`, `unauthorized`, `unknown_flow`, `flow_over`, ...), or `unreachable`, or
 * `not_a_gateway` for an answer that is none of a gateway's.
 */
export class SluiceClientError extends Error {
  override readonly name: string = 'SluiceClientError';
  readonly code: string;
  /** The HTTP status; none when nothing answered. */
  readonly status: number | undefined;
  /** When it is worth trying again, in milliseconds from now. */
  readonly retryAfterMs: number | undefined;
  /** The field or header that was wrong. */
  readonly param: string | undefined;

  constructor(code: string, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? {} : { cause: details.cause });
    this.code = code;
    this.status = details.status;
    this.retryAfterMs = details.retryAfterMs;
    this.param = details.param;
  }
}

/**
 * The flow was not admitted, through no fault of the call: `queue_full`, `rate_limited`,
 * `queue_timeout`, `cancelled`, or `unavailable`. Do without, or try again after `retryAfterMs`.
 */
export class FlowRejectedError extends SluiceClientError {
  override readonly name = 'FlowRejectedError';
}

interface ErrorDetails {
  readonly status?: number | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly param?: string | undefined;
  readonly cause?: unknown;
}
