import type { Logger } from 'pino';
import type { Config } from '../src/config.ts';
import { Consumer } from '../src/dispatch/index.ts';
import { startNode, stopMs, within } from '../src/node.ts';
import { ReplicaClient } from '../src/pool/index.ts';
import { connectRedis } from '../src/redis.ts';
import { Appender } from '../src/stream/index.ts';
import { Attempts } from './attempts.ts';
import { Discovery } from './discovery.ts';
import { Prober } from './prober.ts';

/**
 * The BullMQ worker process: pulls admitted prompts, sends each to the replica that `begin` names,
 * reports the end. Any number of them share the work; one that dies loses nothing.
 */
export interface RunningWorker {
  readonly id: string;
  /** Takes no more, waits up to `graceMs` for what runs, then hands the rest to others. */
  stop(graceMs?: number): Promise<void>;
}

/** Default grace of a stop, ms. */
const stopGraceMs = 10_000;

export async function startWorker(
  config: Config,
  redisUrl: string,
  log: Logger,
): Promise<RunningWorker> {
  const pools = config.worker.concurrency;
  let attempts: Attempts | undefined;
  let prober: Prober | undefined;
  let discovery: Discovery | undefined;
  const node = await startNode({
    config,
    redisUrl,
    kind: 'worker',
    pools,
    log,
    onEvent: (event) => {
      if (event.probe) void prober?.run(event.id, event.probe);
      else attempts?.onEvent(event);
    },
    onSwept: ({ probes }) => discovery?.setPools(probes),
    // An order that was missed comes again with the next heartbeat.
    onGap: () => undefined,
  });
  const { credentials, limits, timeouts } = config;
  const replicas = new ReplicaClient({ credentials });
  prober = new Prober(node.admission, replicas, log);
  const discovering = new Discovery({ admission: node.admission, pools: config.pools, log });
  discovery = discovering;
  const appender = new Appender({ redis: node.redis, flushMs: timeouts.flushMs });
  const running = new Attempts({
    admission: node.admission,
    replicas,
    appender,
    workerId: node.id,
    heartbeatMs: timeouts.heartbeatMs,
    abortMarginMs: timeouts.abortMarginMs,
    replicaDownMs: timeouts.replicaDownMs,
    limits: {
      answerBytes: limits.answerBytes,
      firstTokenMs: timeouts.firstTokenMs,
      streamIdleMs: timeouts.streamIdleMs,
    },
    log,
  });
  attempts = running;
  const blocking = await connectRedis(redisUrl, 'blocking', node.id);
  const onError = (error: unknown) => log.error({ err: error }, 'worker failed');
  const consumers = Object.entries(pools).map(([pool, concurrency]) => {
    const run: Attempts['run'] = (job) => running.run(job);
    return new Consumer({
      redis: blocking,
      domain: config.domain,
      pool,
      concurrency,
      run,
      onError,
    });
  });
  running.start();
  for (const consumer of consumers) await consumer.start();
  await node.sweeper.start();
  log.info({ worker: node.id, pools }, 'worker ready');

  const stop = async (graceMs: number) => {
    // First the capacity goes, so that nothing more is admitted for this worker.
    // Another one probes from then on: what this one is at would be one too many.
    prober?.stop();
    const leaving = node.sweeper.announce({ id: node.id, kind: 'worker', pools: {} });
    await within(stopMs, leaving.catch(onError));
    const grace = setTimeout(() => running.stop(), graceMs);
    const consumed = Promise.all(consumers.map((consumer) => consumer.stop()));
    await within(graceMs + stopMs, consumed);
    clearTimeout(grace);
    running.close();
    discovering.stop();
    appender.stop();
    await node.stop();
    await replicas.stop();
    blocking.disconnect();
    log.info({ worker: node.id }, 'worker stopped');
  };
  let stopping: Promise<void> | undefined;
  return {
    id: node.id,
    stop: (graceMs = stopGraceMs) => {
      stopping ??= stop(graceMs);
      return stopping;
    },
  };
}
