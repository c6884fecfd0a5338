import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino';

/**
 * Structured logs, on standard output unless `to` says otherwise, a moment later: a line that is written
 * at once holds up the process. A process that is killed loses the last of them. Lines carry the request's id; prompts, bodies, labels and
 * keys are never put in one, and `redact` covers what an error object might drag along.
 */
export function createLog(
  level: string,
  name: string,
  to: DestinationStream = standardOutput(),
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

/** Lines are written together, at the latest after 100 ms, and when the process ends. */
function standardOutput(): DestinationStream {
  return destination({ dest: 1, sync: false, minLength: 4096, periodicFlush: 100 });
}
