import { FlowRejectedError, SluiceClientError } from '../client/index.ts';

/** Exit codes of the commands that ask a gateway, and errors as text or JSON. */
export const exits = {
  ok: 0,
  /** The gateway refused it, or the answer is no: a policy is not valid. */
  refused: 1,
  /** Wrong arguments, an unreadable file, no gateway, or one that is in trouble itself. */
  trouble: 2,
  /** A flow was not admitted. */
  rejected: 3,
} as const;

export type Exit = number;

/** What goes wrong before a gateway is asked. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly code: string;
  readonly exit: Exit;
  /** One by one: objects for programs, a line each for people. */
  readonly problems: readonly object[] | undefined;
  readonly lines: string | undefined;

  constructor(
    code: string,
    message: string,
    exit: Exit,
    details: { readonly problems?: readonly object[]; readonly lines?: string } = {},
  ) {
    super(message);
    this.code = code;
    this.exit = exit;
    this.problems = details.problems;
    this.lines = details.lines;
  }
}

export function exitOf(error: unknown): Exit {
  if (error instanceof CommandError) return error.exit;
  if (error instanceof FlowRejectedError) return exits.rejected;
  if (!(error instanceof SluiceClientError) || error.code === 'not_a_gateway') return exits.trouble;
  const { status = 500 } = error;
  return status < 500 ? exits.refused : exits.trouble;
}

/** Says on standard error what went wrong: `sluice: message (code)`, or JSON for programs. */
export function report(error: unknown, asJson: boolean): void {
  console.error(asJson ? JSON.stringify(jsonOf(error), null, 2) : textOf(error));
}

/** An error for programs. */
export function jsonOf(error: unknown): object {
  if (error instanceof CommandError) {
    const { code, message, problems } = error;
    return { error: { code, message, problems } };
  }
  if (error instanceof SluiceClientError) {
    const { code, message, status, param, retryAfterMs: retry_after_ms } = error;
    return { error: { code, message, status, param, retry_after_ms } };
  }
  return { error: { code: 'internal', message: String(error) } };
}

/** What the command line has for it. */
const hints: Readonly<Record<string, string>> = {
  unauthorized: ': set SLUICE_API_KEY to a key of the gateway',
  in_use: ' (here: --force)',
};

/** An error for people. */
export function textOf(error: unknown): string {
  if (error instanceof CommandError) {
    const { message, code, lines } = error;
    return [`sluice: ${message} (${code})`, ...(lines === undefined ? [] : [lines])].join('\n');
  }
  if (!(error instanceof SluiceClientError)) {
    // One of ours: where it came from is what helps.
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  const { code, message, retryAfterMs } = error;
  if (code === 'unreachable') {
    return `sluice: ${message}: is a gateway running? Set SLUICE_URL to another`;
  }
  const hint = hints[code] ?? '';
  const later =
    retryAfterMs === undefined ? '' : `; try again in ${(retryAfterMs / 1_000).toFixed(1)} s`;
  return `sluice: ${message}${hint}${later} (${code})`;
}
