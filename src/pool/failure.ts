/** A replica failed in a way that another one may not. */
export class ReplicaFailure extends Error {
  /** It is the replica's state and not this prompt's doing. */
  readonly isDown: boolean;
  /** False when the prompt surely never reached the replica, so that it was tried nowhere. */
  readonly wasSent: boolean;
  /** What it answered, where it is the status that says so. */
  readonly httpStatus: number | undefined;

  constructor(
    message: string,
    isDown: boolean,
    cause?: unknown,
    more: { readonly wasSent?: boolean; readonly httpStatus?: number } = {},
  ) {
    super(message, { cause });
    this.isDown = isDown;
    this.wasSent = more.wasSent ?? true;
    this.httpStatus = more.httpStatus;
  }
}

/** What an error is called, for people; undefined for one without a code. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && error.code ? `${error.code}` : undefined;
}
