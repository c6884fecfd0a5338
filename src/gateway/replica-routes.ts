import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { Admission } from '../admission/index.ts';
import { type Config, readReplicaPut, replicaRecord } from '../config.ts';
import { didYouMean, type Problem, shown } from '../document.ts';
import { SluiceError } from '../errors.ts';
import { asObject, checkFields, type JsonBody } from './bodies.ts';
import { checkAdmin } from './caller.ts';
import type { ReplicaBook } from './replica-book.ts';
import { poolView, replicaIn, replicaView } from './replica-views.ts';

interface Named {
  readonly Params: { readonly id: string };
}

/** The replicas of all pools: who they are, who joins, who goes. */
export function replicaRoutes(
  app: FastifyInstance,
  parts: {
    readonly config: Config;
    readonly log: Logger;
    readonly admission: Admission;
    readonly replicaBook: ReplicaBook;
  },
): void {
  const { config, log, admission, replicaBook } = parts;
  const { replicas } = admission;
  const onRequest = async (request: FastifyRequest) => checkAdmin(request, 'change replicas');
  const viewOf = async (id: string) => {
    const view = await replicas.read(id);
    return view && replicaView(view);
  };
  const known = (id: string, status: 'done' | 'unknown') => {
    if (status === 'unknown') throw unknownReplica(id);
  };

  app.get('/v1/replicas', async () => {
    const view = await admission.inspectDomain();
    const inOrder = view.replicas.toSorted((a, b) => (a.id < b.id ? -1 : 1));
    const pools = new Set([...Object.keys(config.pools), ...inOrder.map(({ pool }) => pool)]);
    return {
      replicas: inOrder.map((replica) => replicaIn(view, replica)),
      pools: [...pools].toSorted().map((pool) => poolView(pool, view)),
    };
  });

  app.get<Named>('/v1/replicas/:id', async ({ params: { id } }) => {
    const view = await viewOf(id);
    if (!view) throw unknownReplica(id);
    return view;
  });

  app.put<Named>('/v1/replicas/:id', { onRequest }, async (request, reply) => {
    const { id } = request.params;
    const { put, warnings } = readPut((request.body as JsonBody | undefined)?.value, id, config);
    const pool = config.pools[put.pool] ?? { replicas: [] };
    const { state, ttlMs: ttl_ms } = put;
    const given = { ...replicaRecord(put.replica, pool), state, ttl_ms };
    const did = await replicas.put(put.pool, given);
    if (did.status === 'full') {
      const message = 'there are as many replicas as there may be; remove some';
      throw new SluiceError('invalid_request', message);
    }
    if (did.status === 'in_use') {
      const message = `prompts of pool ${did.pool} run there: drain it, and put it when they are done`;
      throw new SluiceError('in_use', message);
    }
    const isNew = did.status === 'new';
    if (isNew) await replicaBook.refresh();
    // One that renews itself says nothing new each time.
    log[isNew ? 'info' : 'debug']({ replica: id, pool: put.pool, state }, 'replica put over HTTP');
    reply.code(isNew ? 201 : 200);
    return { ...(await viewOf(id)), ...(warnings.length > 0 && { warnings }) };
  });

  app.delete<Named>('/v1/replicas/:id', { onRequest }, async ({ params: { id } }) => {
    known(id, await replicas.remove(id));
    log.info({ replica: id }, 'replica removed over HTTP');
    return (await viewOf(id)) ?? { id, state: 'removed' };
  });

  app.post<Named>('/v1/replicas/:id/drain', { onRequest }, async (request, reply) => {
    const { id } = request.params;
    const body = (request.body as JsonBody | undefined)?.value;
    const deadline_ms = readDeadline(body, config.timeouts.drainMs);
    known(id, await replicas.drain(id, deadline_ms));
    log.info({ replica: id, deadline_ms }, 'replica drains');
    reply.code(202);
    return viewOf(id);
  });

  app.post<Named>('/v1/replicas/:id/ready', { onRequest }, async ({ params: { id } }) => {
    known(id, await replicas.ready(id));
    log.info({ replica: id }, 'replica takes prompts again');
    return viewOf(id);
  });
}

/** What is put, with the pool that this gateway knows. @throws SluiceError with every problem at once */
function readPut(given: unknown, id: string, config: Config) {
  const read = readReplicaPut(given, id);
  if ('problems' in read) throw invalid(read.problems);
  const { put } = read;
  const pools = Object.keys(config.pools);
  if (!pools.includes(put.pool)) {
    const reason = `${shown(put.pool)} is not one of the pools${didYouMean(put.pool, pools)}`;
    throw invalid([{ path: 'pool', reason }]);
  }
  const { credentials } = put.replica;
  const isUnknown = credentials !== undefined && !Object.hasOwn(config.credentials, credentials);
  const warning = `this gateway has no credentials named ${credentials}; workers must have them`;
  return { put, warnings: isUnknown ? [warning] : [] };
}

/** Before its machine goes a replica's prompts are moved, so that none is cut off, ms. */
const noticeMarginMs = 5_000;

/**
 * When what runs has to be gone, in ms from now: `deadline_ms`, or some seconds before the `time` of
 * AWS's `spot/instance-action` document, which can be sent as it is:
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
 */
function readDeadline(given: unknown, defaultMs: number): number {
  if (given === undefined) return defaultMs;
  const body = asObject(given);
  if (!body) throw new SluiceError('invalid_request', 'the body must be a JSON object');
  checkFields(body, 'a drain', ['deadline_ms', 'action', 'time']);
  const { deadline_ms: ms, time } = body;
  if (ms !== undefined && time !== undefined) {
    throw invalid([{ path: 'time', reason: 'is given beside deadline_ms; keep one of the two' }]);
  }
  if (time !== undefined) {
    const at = typeof time === 'string' ? Date.parse(time) : Number.NaN;
    if (Number.isNaN(at)) {
      throw invalid([{ path: 'time', reason: 'must be a time such as 2026-11-22T08:22:00Z' }]);
    }
    return Math.min(mostDrainMs, Math.max(0, at - Date.now() - noticeMarginMs));
  }
  if (ms === undefined) return defaultMs;
  if (typeof ms === 'number' && Number.isInteger(ms) && ms >= 0 && ms <= mostDrainMs) return ms;
  const reason = `must be whole milliseconds from 0 to ${mostDrainMs}, not ${shown(ms)}`;
  throw invalid([{ path: 'deadline_ms', reason }]);
}

/** Longer than any prompt runs, ms. */
const mostDrainMs = 7 * 24 * 3_600_000;

function invalid(problems: readonly Problem[]): SluiceError {
  const lines = problems.map(({ path, reason }) => `${path || 'the body'} ${reason}`);
  return new SluiceError('invalid_request', lines.join('; '), { param: problems[0]?.path });
}

function unknownReplica(id: string): SluiceError {
  return new SluiceError('not_found', `there is no replica ${shown(id)}`);
}
