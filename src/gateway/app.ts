import type { Socket } from 'node:net';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Redis } from 'ioredis';
import type { Logger } from 'pino';
import type { Admission } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { errorTable, SluiceError } from '../errors.ts';
import type { ReplicaClient } from '../pool/index.ts';
import { asSluiceError, errorBody, sendError } from './answers.ts';
import { parseBody } from './bodies.ts';
import { keyReader } from './caller.ts';
import { catalogRoutes } from './catalog-routes.ts';
import { deadLetterRoutes } from './dead-letter-routes.ts';
import { flowRoutes } from './flow-routes.ts';
import type { Flows } from './flows.ts';
import { jobRoutes } from './job-routes.ts';
import { operateRoutes } from './operate-routes.ts';
import { pauseRoutes } from './pause-routes.ts';
import { Places } from './places.ts';
import type { PolicyBook } from './policy-book.ts';
import type { PolicyChanges } from './policy-changes.ts';
import { policyRoutes } from './policy-routes.ts';
import { promptRoutes } from './prompt-routes.ts';
import type { Prompts } from './prompts.ts';
import type { Rekeyer } from './rekeyer.ts';
import type { ReplicaBook } from './replica-book.ts';
import { replicaRoutes } from './replica-routes.ts';
import { requestIdOf } from './request-ids.ts';
import type { Waiters } from './waiters.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Reads the body; as the body of a prompt when absent. */
    parse?: (bytes: Buffer) => unknown;
  }
}

/** How long a client may take to send its request, ms. */
const receiveMs = 60_000;
/** Paths that are answered without a key: probes have none. */
const openPaths: ReadonlySet<string> = new Set(['/healthz', '/readyz']);

/** The HTTP side of a gateway, without the process around it. */
export function buildApp(parts: {
  readonly config: Config;
  readonly log: Logger;
  readonly redis: Redis;
  readonly admission: Admission;
  readonly book: PolicyBook;
  readonly replicaBook: ReplicaBook;
  readonly rekeyer: Rekeyer;
  readonly changes: PolicyChanges;
  readonly prompts: Prompts;
  readonly flows: Flows;
  readonly waiters: Waiters;
  /** For what is asked of replicas without a turn. */
  readonly replicas: ReplicaClient;
  /** Aborts when the gateway can wait for its clients no longer. */
  readonly closing: AbortSignal;
}): FastifyInstance {
  const { config, log, admission } = parts;
  const app = fastify({
    // Requests are logged below, once and without their query: it may hold a prompt.
    logger: false,
    bodyLimit: config.limits.bodyBytes,
    forceCloseConnections: 'idle',
    requestTimeout: receiveMs,
    // Answered below, in our shape.
    return503OnClosing: false,
    // As long as a header may be: what is no id is unknown, however long it is.
    routerOptions: { maxParamLength: 16_384 },
    clientErrorHandler: answerMalformed,
    frameworkErrors: (error, request, reply) => refuse(error, request, reply),
  });

  // curl -d and some clients say form-urlencoded; Ollama reads JSON whatever the type, so do we.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    '*',
    { parseAs: 'buffer' },
    async (request: FastifyRequest, bytes: Buffer) => {
      const encoding = request.headers['content-encoding'] ?? 'identity';
      if (encoding !== 'identity') {
        const param = 'Content-Encoding';
        throw new SluiceError('invalid_request', 'send the body without compression', { param });
      }
      const { parse = parseBody } = request.routeOptions.config;
      return parse(bytes);
    },
  );

  const report = (thrown: unknown, id: string | undefined, url: string) => {
    const error = asSluiceError(thrown);
    const line = { id, code: error.code, path: pathOf(url) };
    // What is wrong with a request may quote it, labels and all; only our own troubles are told.
    // So may a replica, whose words the message of this code has; its worker has logged the reason.
    const isOurs =
      error.code !== 'upstream_failed' &&
      (errorTable[error.code].http >= 500 || error.retryAfterMs !== undefined);
    if (error.code === 'internal') log.error({ ...line, err: thrown }, 'request failed');
    else log.info({ ...line, ...(isOurs && { reason: error.message }) }, 'request refused');
    return error;
  };
  const refuse = (thrown: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const known = requestIdOf(thrown);
    if (known !== undefined) reply.header('sluice-request-id', known).header('x-request-id', known);
    const id = reply.getHeader('sluice-request-id');
    const error = report(thrown, typeof id === 'string' ? id : undefined, request.url);
    return sendError(reply, request.url, error);
  };
  app.setErrorHandler(refuse);

  const routes: { readonly method: string; readonly pattern: RegExp }[] = [];
  app.addHook('onRoute', ({ method, url }) => {
    const pattern = new RegExp(`^${url.replace(/:\w+/g, '[^/]+').replace('*', '.*')}$`);
    for (const one of [method].flat()) routes.push({ method: one, pattern });
  });
  app.setNotFoundHandler((request, reply) => {
    const path = pathOf(request.url);
    const allowed = routes.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method);
    if (allowed.length > 0) {
      reply.header('allow', allowed.join(', '));
      const message = `${path} takes ${allowed.join(', ')}, not ${request.method}`;
      return sendError(reply, path, new SluiceError('method_not_allowed', message));
    }
    return sendError(reply, path, new SluiceError('not_found', `there is nothing at ${path}`));
  });

  // A client that closes its side is answered, with an error where it would have to wait.
  Object.assign(app.server, { httpAllowHalfOpen: true });
  const silent = new Set<Socket>();
  app.server.on('connection', (socket) => {
    silent.add(socket);
    socket.once('close', () => silent.delete(socket));
  });
  app.server.on('request', ({ socket }) => silent.delete(socket));
  let closing = false;
  app.addHook('preClose', async () => {
    closing = true;
    // Node takes those that never asked for anything for busy.
    for (const socket of silent) socket.destroy();
  });
  const readKey = keyReader(config);
  app.decorateRequest('keyLabels');
  app.decorateRequest('keyId', '');
  app.decorateRequest('isAdmin', false);
  app.addHook('onRequest', async (request) => {
    // A type that is none at all would be refused before the parser above sees the body.
    delete request.raw.headers['content-type'];
    if (closing) throw new SluiceError('unavailable', 'this gateway is stopping');
    if (!openPaths.has(pathOf(request.url))) Object.assign(request, readKey(request));
  });

  app.addHook('onResponse', async (request, reply) => {
    const id = reply.getHeader('sluice-request-id');
    const { method } = request;
    const ms = Math.round(reply.elapsedTime);
    log.info({ id, method, path: pathOf(request.url), status: reply.statusCode, ms }, 'answered');
  });

  const places = new Places(admission);
  promptRoutes(app, { ...parts, places, report });
  catalogRoutes(app, parts);
  flowRoutes(app, parts);
  jobRoutes(app, { ...parts, places });
  operateRoutes(app, parts);
  replicaRoutes(app, parts);
  deadLetterRoutes(app, parts);
  pauseRoutes(app, parts);
  policyRoutes(app, parts);
  return app;
}

/** What Node could not read as HTTP, or what did not come in time: there is no request yet. */
function answerMalformed(error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable) return;
  const statuses: Record<string, string> = {
    HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
    ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
  };
  const body = JSON.stringify(errorBody('', new SluiceError('invalid_request', error.message)));
  const head = [
    `HTTP/1.1 ${statuses[error.code ?? ''] ?? '400 Bad Request'}`,
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
}

function pathOf(url: string): string {
  return url.split('?', 1)[0] ?? url;
}
