import type { FastifyInstance } from 'fastify';
import type { Redis } from 'ioredis';
import { type Admission, type DomainView, parseId } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { limitsOf, type Policy } from '../policy/index.ts';
import type { PolicyBook } from './policy-book.ts';

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
    const view = await admission.inspectDomain();
    return { queues: controlPoints(book, config).map((name) => queueView(name, book, view)) };
  });
  app.get<{ Params: { '*': string } }>('/v1/queues/*', async (request) => {
    await book.refresh();
    const name = request.params['*'];
    if (!controlPoints(book, config).includes(name)) {
      throw new SluiceError('not_found', `no policy or model has a control point ${name}`);
    }
    return queueView(name, book, await admission.inspectDomain());
  });

  app.get('/v1/policies', async () => {
    const { version, policies } = await admission.inspectPolicies();
    const list = policies.map(({ name, source, document }) => ({ name, source, policy: document }));
    return { version, policies: list };
  });

  app.get('/v1/replicas', async () => {
    const { replicas, inFlight } = await admission.inspectDomain();
    const now = admission.now();
    return {
      replicas: replicas.map(({ down_until, ...replica }) => ({
        ...replica,
        state: 'ready',
        health: down_until !== undefined && down_until > now ? 'down' : 'up',
        in_flight: inFlight[`replica:${replica.id}`] ?? 0,
      })),
    };
  });

  app.get<{ Params: { id: string } }>('/v1/requests/:id', async (request) => {
    const { id } = request.params;
    const view = parseId(id)?.domain === config.domain ? await admission.inspectRequest(id) : {};
    if (!view.request && !view.ended) {
      throw new SluiceError('unknown_job', 'there is no such request, or it is no longer kept');
    }
    return {
      id,
      state: view.request?.state ?? view.ended?.state,
      position: view.position ?? 0,
      ahead: view.ahead ?? 0,
      waits_for: view.waits_for ?? [],
      estimated_start_ms: view.estimated_start_ms ?? 0,
      basis:
        'who waits under its policy, times the mean service time, over the slots of policy and pool; limits per label are not in it',
    };
  });
}

function controlPoints(book: PolicyBook, config: Config): string[] {
  const ofPolicies = book.policies.flatMap((policy) =>
    policy.selectors.map((selector) => selector.controlPoint),
  );
  const ofModels = Object.values(config.models).map((model) => model.controlPoint);
  return [...new Set([...ofPolicies, ...ofModels])].toSorted();
}

/** Limits and workloads of one control point; `waiting` at a limit counts its whole policy. */
function queueView(controlPoint: string, book: PolicyBook, view: DomainView): object {
  const policies = book.selecting(controlPoint);
  return {
    control_point: controlPoint,
    limits: policies.flatMap((policy) => limitViews(policy, view)),
    workloads: policies.flatMap((policy) => workloadViews(policy, view)),
  };
}

function limitViews(policy: Policy, view: DomainView): object[] {
  const node = view.nodes.find(({ path }) => isPath(path, policy.name));
  return Object.entries(limitsOf(policy)).flatMap(([key, own]): object[] => {
    if (typeof own === 'object') {
      const { capacity, fillAmount: fill_amount, intervalMs: interval_ms } = own;
      return [{ key, capacity, fill_amount, interval_ms }];
    }
    const limit = view.limits[key] ?? 0;
    const instances = Object.entries(view.inFlight).filter(([name]) => name.startsWith(`${key}=`));
    if (instances.length > 0) {
      return instances.map(([name, in_flight]) => ({ key: name, limit, in_flight }));
    }
    return [{ key, limit, in_flight: view.inFlight[key] ?? 0, waiting: node?.waiting ?? 0 }];
  });
}

function workloadViews(policy: Policy, view: DomainView): object[] {
  return view.nodes.flatMap(({ path, waiting, in_flight }) => {
    const [policyPath = '', workload] = path.split('/');
    if (workload === undefined || !isPath(policyPath, policy.name)) return [];
    const [name = '', priority = '1'] = workload.split('@');
    return [{ name: decodeURIComponent(name), priority: Number(priority), waiting, in_flight }];
  });
}

/** Nodes are named by encoded texts, in which a dot is encoded too. */
function isPath(path: string, name: string): boolean {
  return decodeURIComponent(path) === name;
}
