import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Config } from '../config.ts';
import { type ClientPrompt, exchangeFor, isNative } from '../protocols/index.ts';
import { type JsonBody, type ParsedPrompt, promptPaths, readPrompt } from './bodies.ts';
import { readCaller, readIdempotencyKey } from './caller.ts';
import { type Answering, answerStream, answerWhole } from './client-answer.ts';
import { clientGone } from './client-gone.ts';
import type { Places } from './places.ts';
import { modelOf, type Prompts } from './prompts.ts';
import type { ReplicaBook } from './replica-book.ts';

/** The protocols of the replicas, served by the scheduler: same paths, same bodies. */
export function promptRoutes(
  app: FastifyInstance,
  parts: {
    readonly config: Config;
    readonly prompts: Prompts;
    readonly places: Places;
    readonly replicaBook: ReplicaBook;
    /** Aborts when the gateway can wait for its clients no longer. */
    readonly closing: AbortSignal;
    /** Logs a failure that no error handler sees. */
    readonly report: (error: unknown, id: string, url: string) => void;
  },
): void {
  const { config, prompts, places, replicaBook, closing, report } = parts;
  const serve = async (request: FastifyRequest, reply: FastifyReply, prompt: ParsedPrompt) => {
    checkTranslation(prompt.client, config, replicaBook);
    const caller = readCaller(request, config, prompt.labels);
    const { path, body, model } = prompt.client;
    const key = readIdempotencyKey(request, [path, model, body, caller]);
    const open = await prompts.open({ ...prompt, ...caller }, key);
    // Under the second name OpenAI's clients show it.
    reply.header('sluice-request-id', open.id).header('x-request-id', open.id);
    const answering: Answering = {
      open,
      reply,
      path,
      gone: clientGone(request, reply),
      closing,
      timeouts: config.timeouts,
      places,
      onFailure: (error) => report(error, open.id, path),
    };
    return prompt.client.stream ? answerStream(answering) : answerWhole(answering);
  };

  for (const path of promptPaths.filter((one) => one !== '/infer')) {
    app.post(path, async (request, reply) => {
      const body = request.body as JsonBody | undefined;
      return serve(request, reply, readPrompt(path, body, config));
    });
  }
  type Infer = { Querystring: { text?: unknown; model?: unknown } };
  app.get<Infer>('/infer', { exposeHeadRoute: false }, (request, reply) => {
    const { text, model } = request.query;
    const value = { text, ...(model !== undefined && { model }) };
    const body = { value, text: JSON.stringify({ text }) };
    return serve(request, reply, readPrompt('/infer', body, config));
  });
}

/**
 * Refuses what one of the pool's replicas cannot be asked, before it waits for it: replicas of a pool
 * stand in for each other, and which one it meets is not the client's doing.
 * @throws SluiceError invalid_request that names the field
 */
export function checkTranslation(
  client: ClientPrompt,
  config: Config,
  book: Pick<ReplicaBook, 'protocolsOf'>,
): void {
  const { pool } = modelOf(client.model, config);
  const template = config.pools[pool]?.template;
  for (const protocol of book.protocolsOf(pool)) {
    if (!isNative(protocol, client.path)) exchangeFor(client, { protocol, template });
  }
}
