import { randomBytes } from 'node:crypto';
import type { Redis } from 'ioredis';
import type { Logger } from 'pino';
import {
  Admission,
  type Dispatch,
  type Member,
  nodeChannel,
  Sweeper,
  type SweepResult,
} from './admission/index.ts';
import type { Config } from './config.ts';
import { Dispatcher } from './dispatch/index.ts';
import { checkServer, connectRedis } from './redis.ts';
import { type NodeEvent, Subscription } from './stream/index.ts';

/**
 * What every process of the cluster is made of, gateway or worker: connections, the steps, the
 * hand-over to BullMQ of whatever a step admits, and the sweeper with its sign of life.
 */
export interface ClusterNode {
  readonly id: string;
  readonly redis: Redis;
  readonly admission: Admission;
  readonly sweeper: Sweeper;
  readonly subscription: Subscription;
  stop(): Promise<void>;
}

export interface ClusterNodeOptions {
  readonly config: Config;
  readonly redisUrl: string;
  readonly kind: Member['kind'];
  readonly pools?: Member['pools'];
  readonly log: Logger;
  readonly onEvent: (event: NodeEvent) => void;
  /** Events may have been missed, or the cluster took this process for dead. */
  readonly onGap: () => void;
  /** After each sweep of its own. */
  readonly onSwept?: (result: SweepResult) => void;
}

/** An offer to BullMQ that nobody confirmed is made again after this, ms. */
const offerAgainMs = 1_000;
/** An unknown id older than this is not a new request, ms. */
const idAgeMs = 30_000;

/** How long a part may take to stop where Redis does not answer, ms. */
export const stopMs = 5_000;

/** Waits for `work`, but no longer than `ms`: what is late then ends with the process. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([work, promise]).finally(() => clearTimeout(timer));
}

/** Connects and prepares; `sweeper.start()` is the caller's, once it can take work. */
export async function startNode(options: ClusterNodeOptions): Promise<ClusterNode> {
  const { config, redisUrl, kind, log } = options;
  const id = config.nodeId ?? `${kind}-${randomBytes(4).toString('hex')}`;
  const onError = (error: unknown) => log.error({ err: error }, 'step failed');
  const redis = await connectRedis(redisUrl, 'commands', id);
  let events: Redis | undefined;
  try {
    events = await connectRedis(redisUrl, 'events', id);
    const subscriber = events;
    await checkServer(redis);
    const { limits, timeouts } = config;
    const admission = new Admission({
      redis,
      domain: config.domain,
      settings: {
        beginMs: timeouts.beginMs,
        heartbeatMs: timeouts.heartbeatMs,
        memberMs: timeouts.memberMs,
        offerAgainMs,
        idAgeMs,
        bodyLimit: limits.queuedBytes,
        waitingLimit: limits.waiting,
        heldLimit: limits.held,
        maxAttempts: config.attempts,
        keepMs: Math.max(timeouts.keepMs, idAgeMs),
        keepJobMs: Math.max(timeouts.keepJobMs, idAgeMs),
        keepDeadMs: timeouts.keepDeadMs,
        deadLetters: limits.deadLetters,
        deadLetterBytes: limits.deadLetterBytes,
      },
    });
    await admission.checkSchema();
    const acknowledge = (jobs: readonly Dispatch[]) => admission.acknowledge(jobs);
    const dispatcher = new Dispatcher({ redis, domain: config.domain, acknowledge, onError });
    admission.onReply(({ dispatch }) => dispatch && dispatcher.dispatch(dispatch));
    const subscription = await Subscription.open({
      redis: subscriber,
      channel: nodeChannel(config.domain, id),
      onEvent: options.onEvent,
      onGap: options.onGap,
    });
    const sweeper = new Sweeper({
      admission,
      member: { id, kind, pools: options.pools },
      everyMs: timeouts.sweepMs,
      onError,
      onJoined: options.onGap,
      onSwept: options.onSwept,
    });
    const stop = async () => {
      await within(stopMs, sweeper.stop());
      await within(stopMs, dispatcher.stop());
      redis.disconnect();
      subscriber.disconnect();
    };
    return { id, redis, admission, sweeper, subscription, stop };
  } catch (error) {
    redis.disconnect();
    events?.disconnect();
    throw error;
  }
}
