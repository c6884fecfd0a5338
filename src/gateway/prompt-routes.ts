import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { type ParsedPrompt, promptPaths, readPrompt } from './bodies.ts';
import { readCaller } from './caller.ts';
import type { Prompts } from './prompts.ts';

/** The protocols of the replicas, served by the scheduler: same paths, same bodies. */
export function promptRoutes(app: FastifyInstance, config: Config, prompts: Prompts): void {
  for (const path of promptPaths) {
    app.post(path, async (request, reply) => {
      const prompt = readPrompt(path, request.body, config.defaultModel);
      refuseStream(path, prompt);
      const caller = readCaller(request, config);
      const { id, answer, queuedMs } = await prompts.run(
        { ...prompt, ...caller },
        clientGone(request, reply),
      );
      reply.header('sluice-request-id', id).header('sluice-queue-ms', String(queuedMs));
      return send(reply, prompt, path, answer);
    });
  }

  app.get('/v1/models', async () => ({
    object: 'list',
    data: Object.keys(config.models).map((id) => ({ id, object: 'model', owned_by: 'sluice' })),
  }));
  app.get('/api/tags', async () => ({
    models: Object.keys(config.models).map((name) => ({ name, model: name })),
  }));
  app.get('/api/version', async () => ({ version: '0.0.0-sluice' }));
}

/** Ollama streams by default, so its clients get the whole answer as a stream of one object. */
function send(
  reply: FastifyReply,
  prompt: ParsedPrompt,
  path: string,
  answer: { status: number; contentType: string; body: string },
): FastifyReply {
  const asStream = prompt.stream && path.startsWith('/api/') && answer.status === 200;
  reply.code(answer.status);
  if (!asStream) return reply.type(answer.contentType).send(answer.body);
  return reply.type('application/x-ndjson').send(`${answer.body.trimEnd()}\n`);
}

function refuseStream(path: string, prompt: ParsedPrompt): void {
  if (prompt.stream && path.startsWith('/v1/')) {
    const message = 'stream: true is not served yet; leave it out to get the whole answer';
    throw new SluiceError('invalid_request', message, { param: 'stream' });
  }
}

/** Aborts when the client's connection is gone before it has its answer. */
function clientGone(request: FastifyRequest, reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) gone.abort();
  });
  if (request.raw.socket.destroyed) gone.abort();
  return gone.signal;
}
