import type { Redis } from 'ioredis';

/** An event of a request or an order to a worker, as steps and workers publish it. */
export interface NodeEvent {
  readonly id: string;
  readonly state?: string;
  readonly code?: string;
  readonly attempt?: number;
  /** An order to a worker: end this attempt. */
  readonly abort?: boolean;
  /** An order to a worker: probe the replica of this id. */
  readonly probe?: ProbeOrder;
  /** Id of an entry of its stream, see entries.ts. */
  readonly at?: string;
  /** That entry's events; absent when they are too long to be told. */
  readonly events?: readonly string[];
  /** That entry's answer; absent when it is too long to be told. */
  readonly answer?: string;
  /** How long it waited to be admitted, ms. */
  readonly queued_ms?: number;
}

/** What to ask a replica to find out whether it is ready, see lua/lib/roster.lua. */
export interface ProbeOrder {
  /** Its answer is reported under this. */
  readonly number: number;
  /** Base URL of the replica. */
  readonly url: string;
  readonly credentials?: string;
  readonly path: string;
  /** JSON text to post; GET without. */
  readonly post_data?: string;
  readonly timeout_ms: number;
}

export interface SubscriptionOptions {
  /** A connection of its own: one that subscribes can do nothing else. */
  readonly redis: Redis;
  /** The channel of this process. */
  readonly channel: string;
  readonly onEvent: (event: NodeEvent) => void;
  /** Subscribed again after a lost connection: events may be missing. */
  readonly onGap: () => void;
}

/**
 * Listens to this process's channel, and to those of the requests that it follows beside its own.
 * ioredis subscribes to all of them again after a reconnect.
 */
export class Subscription {
  readonly #redis: Redis;
  /** Listeners of channels beside the process's own: a count for each. */
  readonly #channels = new Map<string, number>();

  private constructor(redis: Redis) {
    this.#redis = redis;
  }

  static async open(options: SubscriptionOptions): Promise<Subscription> {
    const { redis, channel, onEvent, onGap } = options;
    const subscription = new Subscription(redis);
    let subscribed = false;
    redis.on('message', (from: string, text: string) => {
      if (from !== channel && !subscription.#channels.has(from)) return;
      for (const event of parseEvents(text)) hear(event, onEvent);
    });
    redis.on('ready', () => {
      if (subscribed) onGap();
    });
    await redis.subscribe(channel);
    subscribed = true;
    return subscription;
  }

  /** Resolves when everything published from now on is heard. */
  async listen(channel: string): Promise<void> {
    this.#channels.set(channel, (this.#channels.get(channel) ?? 0) + 1);
    await this.#redis.subscribe(channel);
  }

  /** Whether nobody of this process listens there any more. */
  async unlisten(channel: string): Promise<boolean> {
    const left = (this.#channels.get(channel) ?? 0) - 1;
    if (left > 0) {
      this.#channels.set(channel, left);
      return false;
    }
    this.#channels.delete(channel);
    await this.#redis.unsubscribe(channel);
    return true;
  }
}

/** An event whose parts make no sense is none. */
function hear(event: NodeEvent, onEvent: (event: NodeEvent) => void): void {
  try {
    onEvent(event);
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
  }
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
