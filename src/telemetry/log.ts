import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino';

/**
 * Structured logs, on standard output unless `to` says otherwise. Lines carry the request's id; prompts, bodies, labels and
 * keys are never put in one, and `redact` covers what an error object might drag along.
 */
export function createLog(
  level: string,
  name: string,
  to: DestinationStream = destination(1),
): Logger {
  const options = {
    level,
    base: { name },
    timestamp: stdTimeFunctions.isoTime,
    redact: {
      paths: ['body', 'prompt', '*.body', '*.prompt', 'err.command.args', 'err.cause.command.args'],
      censor: '[left out]',
    },
  };
  return pino(options, to);
}
