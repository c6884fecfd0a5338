import fastify, { type FastifyInstance, type HTTPMethods } from 'fastify';
import type { Redis } from 'ioredis';
import type { Logger } from 'pino';
import type { Admission } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { asSluiceError, errorBody, sendError } from './answers.ts';
import { jobRoutes } from './job-routes.ts';
import { operateRoutes } from './operate-routes.ts';
import type { PolicyBook } from './policy-book.ts';
import { promptRoutes } from './prompt-routes.ts';
import { type Prompts, requestIdOf } from './prompts.ts';

/** The HTTP side of a gateway, without the process around it. */
export function buildApp(parts: {
  readonly config: Config;
  readonly log: Logger;
  readonly redis: Redis;
  readonly admission: Admission;
  readonly book: PolicyBook;
  readonly prompts: Prompts;
}): FastifyInstance {
  const { config, log, admission, prompts } = parts;
  const app = fastify({
    // Requests are logged below, once and without their query: it may hold a prompt.
    logger: false,
    bodyLimit: config.limits.bodyBytes,
    forceCloseConnections: 'idle',
    clientErrorHandler: (error, socket) => {
      const body = JSON.stringify(errorBody('', new SluiceError('invalid_request', error.message)));
      if (!socket.writable) return;
      const head = 'HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n';
      socket.end(
        `${head}Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
      );
    },
  });

  // curl -d and some clients say form-urlencoded; Ollama reads JSON whatever the type, so do we.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, text, done) => {
    try {
      done(null, JSON.parse(String(text)));
    } catch (cause) {
      const message = 'the body is not valid JSON';
      done(new SluiceError('invalid_request', message, { param: 'body', cause }), undefined);
    }
  });

  app.setErrorHandler((thrown, request, reply) => {
    const error = asSluiceError(thrown);
    const id = requestIdOf(thrown);
    if (id !== undefined) reply.header('sluice-request-id', id);
    const line = { id, code: error.code, path: pathOf(request.url) };
    if (error.code === 'internal') log.error({ ...line, err: thrown }, 'request failed');
    else log.info({ ...line, reason: error.message }, 'request refused');
    return sendError(reply, request.url, error);
  });

  app.setNotFoundHandler((request, reply) => {
    const path = pathOf(request.url);
    const allowed = methods.filter(
      (method) => app.hasRoute({ method, url: path }) || served(method, path),
    );
    if (allowed.length > 0) {
      reply.header('allow', allowed.join(', '));
      const message = `${path} takes ${allowed.join(', ')}, not ${request.method}`;
      return sendError(reply, path, new SluiceError('method_not_allowed', message));
    }
    return sendError(reply, path, new SluiceError('not_found', `there is nothing at ${path}`));
  });

  /** Whether a route with parameters takes this method. */
  function served(method: HTTPMethods, path: string): boolean {
    return (
      app.findRoute({
        method,
        url: path.replace(/^(\/v1\/(?:jobs|requests))\/[^/]+$/, '$1/:id'),
      }) !== null
    );
  }

  app.addHook('onResponse', async (request, reply) => {
    const id = reply.getHeader('sluice-request-id');
    const { method } = request;
    const ms = Math.round(reply.elapsedTime);
    log.info({ id, method, path: pathOf(request.url), status: reply.statusCode, ms }, 'answered');
  });

  promptRoutes(app, config, prompts);
  jobRoutes(app, config, prompts, admission);
  operateRoutes(app, parts);
  return app;
}

const methods: readonly HTTPMethods[] = ['GET', 'POST', 'PUT', 'DELETE'];

function pathOf(url: string): string {
  return url.split('?', 1)[0] ?? url;
}
