/** Hears who is admitted, in order, as a gateway does: on its channel. */

import type { Redis } from 'ioredis';
import { domainKey } from '../../../src/admission/keys.ts';

interface Event {
  readonly id?: string;
  readonly state?: string;
  /** Ours: everything published before it has been heard. */
  readonly mark?: number;
}

export class Watch {
  readonly #publisher: Redis;
  readonly #subscriber: Redis;
  readonly #channel: string;
  #admitted: string[] = [];
  #marks = 0;
  #onMark: (() => void) | undefined;

  constructor(publisher: Redis, subscriber: Redis, domain: string, gateway: string) {
    this.#publisher = publisher;
    this.#subscriber = subscriber;
    this.#channel = domainKey(domain, `node:${gateway}`);
  }

  async start(): Promise<void> {
    this.#subscriber.on('message', this.#hear);
    await this.#subscriber.subscribe(this.#channel);
  }

  async stop(): Promise<void> {
    this.#subscriber.off('message', this.#hear);
    await this.#subscriber.unsubscribe(this.#channel);
  }

  /** Ids admitted since the last call. */
  async admitted(): Promise<string[]> {
    const mark = ++this.#marks;
    const heard = new Promise<void>((resolve) => {
      this.#onMark = resolve;
    });
    await this.#publisher.publish(this.#channel, JSON.stringify({ mark }));
    await heard;
    const ids = this.#admitted;
    this.#admitted = [];
    return ids;
  }

  #hear = (channel: string, text: string): void => {
    if (channel !== this.#channel) return;
    const events = JSON.parse(text) as Event | readonly Event[];
    for (const { id, state, mark } of [events].flat()) {
      if (mark === this.#marks) this.#onMark?.();
      if (id !== undefined && state === 'admitted') this.#admitted.push(id);
    }
  };
}
