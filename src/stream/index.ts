import type { Redis } from 'ioredis';

/**
 * What a request's replica answered, over Redis. The answer is kept in a Redis stream of its own,
 * with a TTL; the event on the owner's channel is only the doorbell, so a lost one loses nothing.
 * One entry holds a whole answer today; tokens would be entries of the same stream before it, read
 * from the last id that a client has seen.
 */

/** A whole answer, as the client gets it. */
export interface Answer {
  /** HTTP status. */
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

/** The answer as one stream entry. */
export function encodeAnswer(answer: Answer): string {
  return JSON.stringify(answer);
}

/** Reads the answer at the end of a stream; undefined when there is none (any more). */
export async function readAnswer(redis: Redis, streamKey: string): Promise<Answer | undefined> {
  const [last] = await redis.xrevrange(streamKey, '+', '-', 'COUNT', 1);
  if (!last) return undefined;
  const at = last[1].indexOf('data');
  const data = at < 0 ? undefined : last[1][at + 1];
  return data === undefined ? undefined : (JSON.parse(data) as Answer);
}

/** An event of a request or an order to a worker, as the steps publish it. */
export interface NodeEvent {
  readonly id: string;
  readonly state?: string;
  readonly code?: string;
  readonly attempt?: number;
  readonly abort?: boolean;
}

export interface SubscriptionOptions {
  /** A connection of its own: one that subscribes can do nothing else. */
  readonly redis: Redis;
  readonly channel: string;
  readonly onEvent: (event: NodeEvent) => void;
  /** Subscribed again after a lost connection: events may be missing. */
  readonly onGap: () => void;
}

/** Listens on one channel until its connection ends; ioredis subscribes again after a reconnect. */
export async function subscribe(options: SubscriptionOptions): Promise<void> {
  const { redis, channel, onEvent, onGap } = options;
  let subscribed = false;
  redis.on('message', (from: string, text: string) => {
    if (from === channel) for (const event of parseEvents(text)) onEvent(event);
  });
  redis.on('ready', () => {
    if (subscribed) onGap();
  });
  await redis.subscribe(channel);
  subscribed = true;
}

/** Anyone may publish on a channel: what is no event must not end the process. */
function parseEvents(text: string): NodeEvent[] {
  try {
    const list = JSON.parse(text) as unknown;
    if (!Array.isArray(list)) return [];
    return list.filter((event: Partial<NodeEvent> | null) => typeof event?.id === 'string');
  } catch {
    return [];
  }
}
