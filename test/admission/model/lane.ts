/**
 * One domain that histories run in, one after the other, with two gateways and a clock that only the
 * test moves. What the steps publish is heard through one connection for all lanes of a process.
 */

import type { Redis } from 'ioredis';
import { Admission } from '../../../src/admission/admission.ts';
import type { StepReply } from '../../../src/admission/index.ts';
import { domainKey } from '../../../src/admission/keys.ts';
import type { TestRedis } from '../../support/redis.ts';
import { readSnapshot, type Snapshot } from '../invariants.ts';
import type { Told } from '../model.ts';
import { settings } from '../world.ts';

type Patch = (step: string, source: string) => string;

/** Small enough for a history to reach its bounds. */
export const laneSettings = { ...settings, bodyLimit: 4_000, waitingLimit: 40, heldLimit: 12 };

export interface Observed {
  readonly snapshot: Snapshot;
  readonly told: Told;
  /** When the last step said that something is due, and the earliest that any of them said. */
  readonly due: number | undefined;
}

/** Domains are told apart in Pub/Sub, which databases do not divide. */
const pool = process.env.VITEST_POOL_ID ?? '0';

export class Lane {
  nowMs = 0;
  readonly gateways: readonly [Admission, Admission];
  readonly #redis: Redis;
  readonly #domain: string;
  #told: Told = { events: {}, dispatch: [] };
  #due: number | undefined;
  #marked: () => void = () => {};
  #ids = 0;

  constructor(redis: Redis, name: string, patch?: Patch) {
    this.#redis = redis;
    this.#domain = name;
    const options = { redis, domain: name, settings: laneSettings, clock: () => this.nowMs, patch };
    this.gateways = [new Admission(options), new Admission(options)];
    for (const gateway of this.gateways) gateway.onReply((reply) => this.#note(reply));
  }

  /** Everything that was there before is gone. */
  async reset(): Promise<void> {
    this.nowMs = 1_800_000_000_000;
    this.#told = { events: {}, dispatch: [] };
    const keys = await this.#redis.keys(domainKey(this.#domain, '*'));
    if (keys.length > 0) await this.#redis.unlink(...keys);
  }

  /** An id that is the same in every run of a history. */
  newId(): string {
    this.#ids += 1;
    return `${this.#domain}-${this.nowMs.toString(36)}-${this.#ids.toString(16).padStart(16, '0')}`;
  }

  /** What the steps since the last call caused, and what is in Redis now. */
  async observe(): Promise<Observed> {
    const marked = new Promise<void>((resolve) => {
      this.#marked = resolve;
    });
    const [snapshot] = await Promise.all([
      readSnapshot(this.#redis, this.#domain),
      this.#redis.publish(domainKey(this.#domain, 'node:mark'), '[]'),
      marked,
    ]);
    const told = this.#told;
    this.#told = { events: {}, dispatch: [] };
    return { snapshot, told, due: this.#due };
  }

  /** Names of the domain's keys. */
  async keys(): Promise<string[]> {
    const keys = await this.#redis.keys(domainKey(this.#domain, '*'));
    return keys.map((key) => key.slice(domainKey(this.#domain, '').length));
  }

  hear(node: string, text: string): void {
    if (node === 'mark') this.#marked();
    if (!node.startsWith('g')) return;
    const events = JSON.parse(text) as { id: string; state: string }[];
    const told = this.#told.events[node] ?? [];
    this.#told.events[node] = told;
    told.push(...events.map(({ id, state }) => `${id} ${state}`));
  }

  #note({ dispatch = [], due }: StepReply): void {
    this.#told.dispatch.push(...dispatch.map(({ id, attempt }) => `${id} ${attempt}`));
    this.#due = due;
  }
}

/** So many lanes, each with what its domain publishes. */
export async function openLanes(server: TestRedis, count: number, patch?: Patch): Promise<Lane[]> {
  const redis = server.connect({ enableAutoPipelining: true });
  const subscriber = server.connect();
  const prefix = `m${pool}x${count}x${opened++}x`;
  const lanes = new Map<string, Lane>();
  for (let lane = 0; lane < count; lane++) {
    lanes.set(`${prefix}${lane}`, new Lane(redis, `${prefix}${lane}`, patch));
  }
  subscriber.on('pmessage', (_pattern: string, channel: string, text: string) => {
    const [, domain = '', node = ''] = /\{(.*)\}:node:(.*)$/.exec(channel) ?? [];
    lanes.get(domain)?.hear(node, text);
  });
  await subscriber.psubscribe(domainKey(`${prefix}*`, 'node:*'));
  return [...lanes.values()];
}

let opened = 0;
