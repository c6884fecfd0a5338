import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Admission } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { checkTokens, validateLabels } from '../policy/index.ts';
import { asObject, checkFields, invalid, type JsonBody } from './bodies.ts';
import { readCaller, readTimeout } from './caller.ts';
import { clientGone } from './client-gone.ts';
import { defaultTokens, type FlowEnd, type Flows, unknownFlow } from './flows.ts';
import { readOwnRequest } from './own-request.ts';

interface OfFlow {
  readonly Params: { readonly id: string };
}

/** Flows over HTTP, for languages without an SDK. */
export function flowRoutes(
  app: FastifyInstance,
  parts: {
    readonly config: Config;
    readonly admission: Admission;
    readonly flows: Flows;
    /** Aborts when the gateway can wait for its clients no longer. */
    readonly closing: AbortSignal;
  },
): void {
  const { config, admission, flows, closing } = parts;

  app.post('/v1/flows', async (request, reply) => {
    const flow = readFlow((request.body as JsonBody | undefined)?.value, config);
    if (request.headers['idempotency-key'] !== undefined) {
      throw invalid('Idempotency-Key', 'is for prompts and jobs: each start is a flow of its own');
    }
    const caller = readCaller(request, config, flow.labels);
    const asked = {
      ...caller,
      controlPoint: caller.controlPoint ?? flow.controlPoint,
      timeoutMs: caller.timeoutMs ?? flow.timeoutMs,
      tokensEstimate: flow.tokens,
      heartbeat: flow.heartbeat,
    };
    const startedAt = performance.now();
    const { id, leaseMs, limited } = await flows.start(asked, [
      clientGone(request, reply),
      closing,
    ]);
    reply.header('sluice-request-id', id);
    reply.header('sluice-queue-ms', String(Math.round(performance.now() - startedAt)));
    return { id, state: 'admitted', lease_ms: leaseMs, limited };
  });

  app.post<OfFlow>('/v1/flows/:id/heartbeat', async (request, reply) => {
    const { id } = request.params;
    await checkOwn(request, id);
    reply.header('sluice-request-id', id);
    return { id, state: 'admitted', lease_ms: await flows.keep(id) };
  });

  app.post<OfFlow>('/v1/flows/:id/end', async (request, reply) => {
    const { id } = request.params;
    const end = readEnd((request.body as JsonBody | undefined)?.value);
    await checkOwn(request, id);
    reply.header('sluice-request-id', id);
    return { id, state: await flows.end(id, end) };
  });

  const checkOwn = async (request: FastifyRequest, id: string) => {
    const view = await readOwnRequest(request, id, config, admission, unknownFlow);
    if ((view.request ?? view.ended)?.kind !== 'flow') throw unknownFlow();
  };
}

function readFlow(given: unknown, config: Config) {
  const known = ['control_point', 'labels', 'timeout_ms', 'tokens', 'heartbeat'];
  const flow = fieldsOf(given, 'a flow', known);
  if (typeof flow.control_point !== 'string') throw invalid('control_point', 'must be a text');
  if (flow.heartbeat !== undefined && typeof flow.heartbeat !== 'boolean') {
    throw invalid('heartbeat', 'must be true or false');
  }
  return {
    controlPoint: flow.control_point,
    labels: validateLabels(flow.labels ?? {}, config.limits),
    timeoutMs: readTimeout(flow.timeout_ms, 'timeout_ms', config),
    tokens: readTokens(flow.tokens) ?? defaultTokens,
    heartbeat: flow.heartbeat ?? false,
  };
}

function readEnd(given: unknown): FlowEnd {
  const { tokens, status } = fieldsOf(given ?? {}, 'the end of a flow', ['tokens', 'status']);
  if (status !== undefined && status !== 'ok' && status !== 'error') {
    throw invalid('status', 'must be ok or error');
  }
  return { tokens: readTokens(tokens), failed: status === 'error' };
}

function fieldsOf(given: unknown, what: string, known: readonly string[]) {
  const fields = asObject(given);
  if (!fields) throw invalid('the body', 'must be a JSON object');
  checkFields(fields, what, known);
  return fields;
}

function readTokens(given: unknown): number | undefined {
  if (given === undefined) return undefined;
  if (typeof given !== 'number') throw invalid('tokens', 'must be a number');
  return checkTokens(given, 'tokens');
}
