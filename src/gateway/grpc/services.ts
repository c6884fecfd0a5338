import { fileURLToPath } from 'node:url';
import {
  loadPackageDefinition,
  type Server,
  type ServerUnaryCall,
  type ServiceDefinition,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import type { Logger } from 'pino';
import type { Admission } from '../../admission/index.ts';
import type { Config } from '../../config.ts';
import { errorTable } from '../../errors.ts';
import { asSluiceError } from '../answers.ts';
import { type Key, keyFinder } from '../caller.ts';
import { type Flows, unknownFlow } from '../flows.ts';
import { readOwnRequest } from '../own-request.ts';
import type { PolicyBook } from '../policy-book.ts';
import { requestIdOf } from '../request-ids.ts';
import { FlowCache } from './cache.ts';
import { check } from './check.ts';
import { requestIdLabel } from './check-response.ts';
import { type EndOwn, endBySpans, endFlows } from './ends.ts';
import { type FindKey, unauthorized } from './gatekeeper.ts';

export interface ServiceParts {
  readonly config: Config;
  readonly log: Logger;
  readonly admission: Admission;
  readonly flows: Flows;
  readonly book: PolicyBook;
  /** Aborts when the gateway can wait for its clients no longer. */
  readonly closing: AbortSignal;
}

/** Spans that leave with their batches of every 5 s, as they do unless told otherwise, ms. */
const lateSpansMs = 2_000;
/** How often that is said, ms. */
const tellLateEveryMs = 60_000;

/** Puts the services of `proto/` on a server: who calls, what is logged, and who answers. */
export function addServices(server: Server, parts: ServiceParts): void {
  const { config, log, admission, flows, closing } = parts;
  const find = keyInMetadata(config);
  const readKey = ({ metadata }: Pick<ServerUnaryCall<unknown, unknown>, 'metadata'>): Key => {
    const key = find(metadata);
    if (!key) throw unauthorized();
    return key;
  };
  const report = (method: string, thrown: unknown) => {
    const error = asSluiceError(thrown);
    const line = { id: requestIdOf(thrown), code: error.code, method };
    if (error.code === 'internal') log.error({ ...line, err: thrown }, 'request failed');
    else log.info(line, 'request refused');
    return error;
  };
  const cache = new FlowCache(admission, config.limits);
  const endOwn: EndOwn = async (key, id, end) => {
    // An admin's, or everybody's where there are no keys, may be anyone's.
    if (!key.isAdmin) await readOwnRequest(key, id, config, admission, unknownFlow);
    return flows.end(id, end);
  };
  /** Whatever is refused here is a gRPC error: no client takes it for leave to run. */
  const plain =
    <Request, Response>(
      method: string,
      run: (request: Request, key: Key) => Promise<Response>,
    ): Unary<Request, Response> =>
    async (call, callback) => {
      try {
        callback(null, await run(call.request, readKey(call)));
      } catch (thrown) {
        const { code, message } = report(method, thrown);
        callback({ code: errorTable[code].grpc, details: message });
      }
    };

  let toldLateAt = Number.NEGATIVE_INFINITY;
  const tellLate = (lateMs: number) => {
    if (lateMs < lateSpansMs || performance.now() - toldLateAt < tellLateEveryMs) return;
    toldLateAt = performance.now();
    const why = 'flows end late, and hold their slots: set OTEL_BSP_SCHEDULE_DELAY=100 in programs';
    log.warn({ lateMs: Math.round(lateMs) }, why);
  };
  const checkParts = { config, flows, book: parts.book, cache, closing, readKey };
  const reportCheck = (thrown: unknown) => void report('Check', thrown);
  server.addService(serviceOf('flowcontrol', 'aperture.flowcontrol.check.v1.FlowControlService'), {
    Check: async (call: Parameters<typeof check>[0], callback: sendUnaryData<unknown>) => {
      const startedAt = performance.now();
      const answer = await check(call, { ...checkParts, report: reportCheck });
      callback(null, answer);
      const decision = answer.decision_type === 'DECISION_TYPE_ACCEPTED' ? 'accepted' : 'rejected';
      const ms = Math.round(performance.now() - startedAt);
      const id = answer.telemetry_flow_labels[requestIdLabel];
      log.info({ id, method: 'Check', decision, ms }, 'answered');
    },
    FlowEnd: plain('FlowEnd', (request: Parameters<typeof endFlows>[0], key) =>
      endFlows(request, key, endOwn),
    ),
    CacheLookup: plain(
      'CacheLookup',
      async (request: Parameters<FlowCache['lookup']>[0], key) =>
        (await cache.lookup(request, key)) ?? {},
    ),
    CacheUpsert: plain('CacheUpsert', (request: Parameters<FlowCache['upsert']>[0], key) =>
      cache.upsert(request, key),
    ),
    CacheDelete: plain('CacheDelete', (request: Parameters<FlowCache['remove']>[0], key) =>
      cache.remove(request, key),
    ),
  });
  server.addService(serviceOf('trace', 'opentelemetry.proto.collector.trace.v1.TraceService'), {
    Export: plain('Export', async (request: Parameters<typeof endBySpans>[0], key) => {
      tellLate(await endBySpans(request, key, endOwn));
      return {};
    }),
  });
}

/** The key in a call's metadata, as Aperture's SDK sends it. */
export function keyInMetadata(config: Config): FindKey {
  const find = keyFinder(config);
  return (metadata) => {
    const [given] = metadata.get('x-api-key');
    return find(typeof given === 'string' ? given : undefined);
  };
}

/** A service of `proto/<file>.proto`, by its full name. */
function serviceOf(file: string, name: string): ServiceDefinition {
  const path = fileURLToPath(new URL(`../../../proto/${file}.proto`, import.meta.url));
  const definition = loadSync(path, { keepCase: true, defaults: true, longs: Number });
  let part: unknown = loadPackageDefinition(definition);
  for (const step of name.split('.')) part = (part as Record<string, unknown>)[step];
  return (part as { readonly service: ServiceDefinition }).service;
}

type Unary<Request, Response> = (
  call: ServerUnaryCall<Request, Response>,
  callback: sendUnaryData<Response>,
) => void;
