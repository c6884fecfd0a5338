import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { Admission, DeadLetter } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { decodePrompt } from '../protocols/index.ts';
import { checkAdmin } from './caller.ts';
import { readKey } from './idempotency.ts';
import { checkTranslation } from './prompt-routes.ts';
import type { Prompts } from './prompts.ts';
import { callerOf } from './rekeyer.ts';
import type { ReplicaBook } from './replica-book.ts';

interface Named {
  readonly Params: { readonly id: string };
}

/** Letters of one answer. */
const defaultCount = 100;
const mostCount = 200;

/**
 * Prompts that failed on too many replicas. They hold what people asked, of all API keys: only for admins.
 */
export function deadLetterRoutes(
  app: FastifyInstance,
  parts: {
    readonly config: Config;
    readonly log: Logger;
    readonly admission: Admission;
    readonly prompts: Prompts;
    readonly replicaBook: ReplicaBook;
  },
): void {
  const { config, log, admission, prompts, replicaBook } = parts;
  const { deadLetters } = admission;
  const onRequest = async (request: FastifyRequest) => checkAdmin(request, 'see dead letters');
  const read = async (id: string) => {
    const found = await deadLetters.read(id);
    if (!found) throw new SluiceError('not_found', 'there is no such dead letter');
    return found;
  };

  app.get<{ Querystring: Record<string, unknown> }>(
    '/v1/dead-letters',
    { onRequest },
    async ({ query }) => {
      const { after = '0', count = String(defaultCount), ...others } = query;
      const [other] = Object.keys(others);
      if (other !== undefined) throw wrong(other, 'is unknown; there are after and count');
      const { letters, total } = await deadLetters.list(
        wholeNumber(after, 'after', 0, 1e9),
        wholeNumber(count, 'count', 1, mostCount),
      );
      return { letters: letters.map(letterView), total };
    },
  );

  app.get<Named>('/v1/dead-letters/:id', { onRequest }, async ({ params: { id } }) => {
    const { letter, body } = await read(id);
    const { path, model, stream, body: text } = decodePrompt(body);
    return { ...letterView(letter), request: { path, model, stream, body: JSON.parse(text) } };
  });

  app.post<Named>(
    '/v1/dead-letters/:id/replay',
    { onRequest },
    async ({ params: { id } }, reply) => {
      const { letter, body } = await read(id);
      // Who replays it twice, or did not hear that it was, is told of the same job.
      const client = decodePrompt(body);
      // The pool's replicas may be others than when it was sent.
      checkTranslation(client, config, replicaBook);
      const key = readKey(id, 'replay of a dead letter', body);
      const submitted = await prompts.submitJob(
        {
          client: { ...client, replay: client.replay ?? config.replayJobs },
          ...callerOf(letter.labels),
          tokensEstimate: letter.cost,
          controlPoint: letter.control_point,
        },
        key,
      );
      await deadLetters.drop([id]);
      log.info({ id, job: submitted.id }, 'dead letter replayed');
      reply.code(202).header('location', `/v1/jobs/${submitted.id}`);
      return { id: submitted.id, state: submitted.result.state, dead_letter: id };
    },
  );

  app.delete<Named>('/v1/dead-letters/:id', { onRequest }, async ({ params: { id } }) => {
    await read(id);
    await deadLetters.drop([id]);
    return { id };
  });

  app.delete('/v1/dead-letters', { onRequest }, async () => {
    const purged = await deadLetters.purge();
    log.info({ purged }, 'dead letters purged');
    return { purged };
  });
}

function letterView(letter: DeadLetter): object {
  const { labels } = callerOf(letter.labels);
  return { ...letter, labels };
}

function wholeNumber(given: unknown, param: string, least: number, most: number): number {
  const value = typeof given === 'string' && /^\d{1,10}$/.test(given) ? Number(given) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw wrong(param, `must be a whole number from ${least} to ${most}`);
}

function wrong(param: string, reason: string): SluiceError {
  return new SluiceError('invalid_request', `${param} ${reason}`, { param });
}
