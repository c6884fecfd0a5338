import { type Logger, pino, stdTimeFunctions } from 'pino';

/**
 * Structured logs on standard output. Lines carry the request's id; prompts, bodies, labels and
 * keys are never put in one, and `redact` covers what an error object might drag along.
 */
export function createLog(level: string, name: string): Logger {
  return pino({
    level,
    base: { name },
    timestamp: stdTimeFunctions.isoTime,
    redact: {
      paths: ['body', 'prompt', '*.body', '*.prompt', 'err.command.args', 'err.cause.command.args'],
      censor: '[left out]',
    },
  });
}
