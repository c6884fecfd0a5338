import type { Logger } from 'pino';
import { type Config, configWarnings } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { startNode } from '../node.ts';
import { ReplicaClient } from '../pool/index.ts';
import { buildApp } from './app.ts';
import { LargestCosts } from './fairness.ts';
import { FlowWaits } from './flow-waits.ts';
import { Flows } from './flows.ts';
import { startGrpc } from './grpc/index.ts';
import { Intake } from './intake.ts';
import { applyConfig, PolicyBook } from './policy-book.ts';
import { PolicyChanges } from './policy-changes.ts';
import { Prompts } from './prompts.ts';
import { Rekeyer } from './rekeyer.ts';
import { ReplicaBook } from './replica-book.ts';
import { Sampler } from './sampler.ts';
import { Waiters } from './waiters.ts';

export { readPolicies } from './policy-book.ts';

/** A stateless gateway: HTTP in front, Redis behind. Any number of them serve one cluster. */
export interface RunningGateway {
  readonly id: string;
  readonly url: string;
  /** Of gRPC, `host:port`. */
  readonly grpcAddress: string;
  /** Takes no more, waits up to `graceMs` for clients that wait, then ends their requests. */
  stop(graceMs?: number): Promise<void>;
}

/** How long clients that still wait then have to hear that it stops, ms. */
const tellMs = 1_000;
/** How often waiting requests are read again, lest an event was lost, ms. */
const recheckMs = 5_000;
/** How often the cluster is looked at, as long as telemetry listens, ms. */
const defaultSampleMs = 10_000;

export async function startGateway(
  config: Config,
  redisUrl: string,
  log: Logger,
  { sampleMs = defaultSampleMs }: { readonly sampleMs?: number | undefined } = {},
): Promise<RunningGateway> {
  for (const warning of configWarnings(config)) log.warn(warning);
  let waiters: Waiters | undefined;
  let waits: FlowWaits | undefined;
  let book: PolicyBook | undefined;
  const apply = async () => {
    for (const warning of await applyConfig(admission, config)) log.warn(warning);
  };
  /** Events may be missing, and so may everything else: a Redis that kept nothing comes back empty. */
  const onGap = async () => {
    // Still starting: nobody waits, and what is there is read in a moment.
    if (!book) return;
    try {
      const { schema } = await admission.inspectPolicies();
      if (schema === undefined) {
        log.warn('Redis has come back empty: the configuration is applied again');
        await apply();
        await Promise.all([book.refresh(), replicaBook.refresh()]);
      }
    } catch (error) {
      log.warn({ err: error }, 'could not look after a gap');
    }
    await Promise.all([waiters?.check(true), waits?.check()]);
  };
  const node = await startNode({
    config,
    redisUrl,
    kind: 'gateway',
    log,
    onEvent: (event) => {
      waiters?.onEvent(event);
      waits?.onEvent(event);
    },
    onGap: () => void onGap(),
  });
  const { admission, redis, subscription } = node;
  const waiting = new Waiters({
    admission,
    redis,
    subscription,
    onError: (error) => log.warn({ err: error }, 'reading again'),
  });
  waiters = waiting;
  const flowWaits = new FlowWaits(admission, (error) => log.warn({ err: error }, 'reading again'));
  waits = flowWaits;
  const replicas = new ReplicaClient({ credentials: config.credentials });
  const replicaBook = new ReplicaBook(admission, (error) =>
    log.warn({ err: error }, 'reading the replicas'),
  );
  const policies = new PolicyBook(admission);
  const rekeyer = new Rekeyer(admission, policies, (error) =>
    log.warn({ err: error }, 'keying requests anew'),
  );
  const costs = new LargestCosts();
  const sampler = new Sampler({
    admission,
    book: policies,
    config,
    costs,
    everyMs: sampleMs,
    onError: (error) => log.warn({ err: error }, 'looking at the cluster'),
  });
  const stopParts = async () => {
    sampler.stop();
    waiting.stop();
    flowWaits.stop();
    rekeyer.stop();
    replicaBook.stop();
    await replicas.stop();
    await node.stop();
  };
  try {
    await apply();
    await policies.refresh();
    await replicaBook.refresh();
    await rekeyer.run();
    book = policies;
    const intake = new Intake({ config, admission, book: policies, costs });
    const prompts = new Prompts({
      config,
      admission,
      redis,
      book: policies,
      waiters: waiting,
      intake,
      gatewayId: node.id,
    });
    const flows = new Flows({
      config,
      admission,
      book: policies,
      intake,
      waits: flowWaits,
      gatewayId: node.id,
    });
    const changes = new PolicyChanges(admission, rekeyer, config.models);
    const closing = new AbortController();
    const app = buildApp({
      config,
      log,
      redis,
      admission,
      book: policies,
      replicaBook,
      rekeyer,
      changes,
      prompts,
      flows,
      waiters: waiting,
      replicas,
      closing: closing.signal,
    });
    await node.sweeper.start();
    waiting.start(recheckMs);
    flowWaits.start(recheckMs);
    replicaBook.start(recheckMs);
    sampler.start();
    const url = await app.listen({ host: config.host, port: config.port });
    const grpcParts = { config, log, admission, flows, book: policies, closing: closing.signal };
    const grpc = await startGrpc(grpcParts).catch(async (error: unknown) => {
      await app.close();
      throw error;
    });
    const tls = config.grpcTls !== undefined;
    log.info({ gateway: node.id, url, grpc: grpc.address, tls }, 'gateway ready');

    const isStopping = () => new SluiceError('unavailable', 'this gateway is stopping');
    const stop = async (graceMs: number) => {
      // Then they are told, and a moment later cut off.
      const timers = [
        setTimeout(() => closing.abort(isStopping()), graceMs),
        setTimeout(() => app.server.closeAllConnections(), graceMs + tellMs),
        setTimeout(() => grpc.cut(), graceMs + tellMs),
      ];
      await Promise.all([app.close(), grpc.stop()]);
      for (const timer of timers) clearTimeout(timer);
      await stopParts();
      log.info({ gateway: node.id }, 'gateway stopped');
    };
    let stopping: Promise<void> | undefined;
    return {
      id: node.id,
      url,
      grpcAddress: grpc.address,
      stop: (graceMs = config.timeouts.stopMs) => {
        stopping ??= stop(graceMs);
        return stopping;
      },
    };
  } catch (error) {
    await stopParts();
    throw error;
  }
}
