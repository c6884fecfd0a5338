import type { FastifyInstance } from 'fastify';
import type { Redis } from 'ioredis';
import type { Admission } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { readLiveRequests } from './live-requests.ts';
import { readOwnRequest } from './own-request.ts';
import { knownControlPoints, type PolicyBook } from './policy-book.ts';
import { queueView, requestView } from './views.ts';

/** What operators and their probes ask. Read-only. */
export function operateRoutes(
  app: FastifyInstance,
  parts: { config: Config; redis: Redis; admission: Admission; book: PolicyBook },
): void {
  const { config, redis, admission, book } = parts;

  app.get('/healthz', async () => ({ status: 'up' }));
  app.get('/readyz', async () => {
    await redis.ping();
    return { status: 'ready' };
  });

  app.get('/v1/queues', async () => {
    await book.refresh();
    const names = knownControlPoints(book, config);
    const view = await admission.inspectDomain(names);
    return { queues: names.map((name) => queueView(name, book.selecting(name), view)) };
  });
  app.get<{ Params: { '*': string } }>('/v1/queues/*', async (request) => {
    await book.refresh();
    const name = request.params['*'];
    if (!knownControlPoints(book, config).includes(name)) {
      throw new SluiceError('not_found', `no policy or model has a control point ${name}`);
    }
    return queueView(name, book.selecting(name), await admission.inspectDomain([name]));
  });

  app.get<{ Querystring: Record<string, unknown> }>('/v1/requests', async (request) => {
    const { control_point: controlPoint, ...others } = request.query;
    const [other] = Object.keys(others);
    if (other !== undefined || (controlPoint !== undefined && typeof controlPoint !== 'string')) {
      const message = 'the only parameter is control_point, once';
      throw new SluiceError('invalid_request', message, { param: other ?? 'control_point' });
    }
    return readLiveRequests(admission, request, controlPoint);
  });
  app.get<{ Params: { id: string } }>('/v1/requests/:id', async (request) => {
    const { id } = request.params;
    return requestView(id, await readOwnRequest(request, id, config, admission, unknownRequest));
  });
}

function unknownRequest(): SluiceError {
  return new SluiceError('unknown_job', 'there is no such request, or it ended some time ago');
}
