/**
 * The engine as a gateway process has it: steps, events and sweeper on connections like
 * `src/node.ts`'s. Everything that the benchmark says to `Admission` is said here, so a change of
 * its API is a change of this file.
 */

import type { Redis } from 'ioredis';
import {
  Admission,
  type AdmissionSettings,
  makeId,
  nodeChannel,
  type Submission,
  type SubmitResult,
  Sweeper,
} from '../../src/admission/index.ts';
import { connectRedis } from '../../src/redis.ts';
import { type NodeEvent, Subscription } from '../../src/stream/index.ts';

export interface EngineOptions {
  readonly url: string;
  readonly domain: string;
  /** Name of the gateway. */
  readonly id: string;
  /**
   * How long the record of an ended request is kept, ms; default 60 s as in production. The parts
   * that measure throughput keep it for {@link shortRecordsMs}: so a round of a few seconds also
   * pays for forgetting.
   */
  readonly recordsMs?: number | undefined;
  /** Period of the sign of life, ms. */
  readonly sweepMs?: number | undefined;
}

export const shortRecordsMs = 1_000;
const recordsMsDefault = 60_000;
/** Longer than any part takes: nothing expires, nobody is taken for dead while others are measured. */
const foreverMs = 3_600_000;
/** Nothing that waits for a slot here waits that long, ms. */
const stallMs = 60_000;

export interface EngineRequest {
  readonly user: string;
  /** Limiters that it needs, as in a queue's name. */
  readonly limiters: readonly string[];
  readonly id?: string;
}

function settings(recordsMs: number): AdmissionSettings {
  return {
    beginMs: 5_000,
    heartbeatMs: 10_000,
    memberMs: foreverMs,
    offerAgainMs: 1_000,
    idAgeMs: Math.min(recordsMs, 30_000),
    bodyLimit: 2 ** 30,
    waitingLimit: 1_000_000,
    heldLimit: 1_000_000,
    maxAttempts: 3,
    keepMs: recordsMs,
    keepJobMs: recordsMs,
    keepDeadMs: 86_400_000,
    deadLetters: 100,
    deadLetterBytes: 100_000,
  };
}

/** Limits by limit key; a limiter is `<limit key>` or `<limit key>=<value>`. */
export type Limits = Readonly<Record<string, number>>;

export class Engine {
  readonly id: string;
  readonly domain: string;
  readonly admission: Admission;
  /** Subscribed to the gateway's channel. */
  readonly events: Redis;
  readonly commands: Redis;
  readonly #sweeper: Sweeper;
  readonly #waiters = new Map<string, () => void>();
  #onAdmitted: ((id: string) => void) | undefined;
  #dueInMs = Number.POSITIVE_INFINITY;
  #busyAt = 0;
  #version = 0;
  #closing = false;

  private constructor(options: EngineOptions, commands: Redis, events: Redis) {
    const { id, domain, recordsMs = recordsMsDefault, sweepMs = 1_000 } = options;
    this.id = id;
    this.domain = domain;
    this.commands = commands;
    this.events = events;
    this.admission = new Admission({ redis: commands, domain, settings: settings(recordsMs) });
    this.admission.onReply(({ due, now }) => {
      this.#dueInMs = due === undefined ? Number.POSITIVE_INFINITY : due - now;
      if (this.#dueInMs <= 0) this.#busyAt = performance.now();
    });
    this.#sweeper = new Sweeper({
      admission: this.admission,
      member: { id, kind: 'gateway' },
      everyMs: sweepMs,
      onError: (error) => this.#fail(error),
    });
  }

  static async open(options: EngineOptions): Promise<Engine> {
    const commands = await connectRedis(options.url, 'commands', options.id);
    const events = await connectRedis(options.url, 'events', options.id);
    const engine = new Engine(options, commands, events);
    await Subscription.open({
      redis: events,
      channel: nodeChannel(options.domain, options.id),
      onEvent: (event) => engine.#onEvent(event),
      onGap: () => engine.#fail(new Error('the connection for events broke')),
    });
    await engine.#sweeper.start();
    return engine;
  }

  /** Sets the domain's limits, all of one policy. Other gateways call {@link read} afterwards. */
  async limit(limits: Limits): Promise<void> {
    const record = {
      name: 'bench',
      version: JSON.stringify(limits),
      source: 'bench',
      document: {},
      structure: 'bench',
      limits,
    };
    this.#version = (await this.admission.configure({ policies: [record] })).version;
  }

  /** Reads what another gateway configured. */
  async read(): Promise<void> {
    this.#version = (await this.admission.inspectPolicies()).version;
  }

  newId(): string {
    return makeId(this.domain, this.admission.now());
  }

  /** Submits; the state it has then. @throws when it is refused. */
  async submit(request: EngineRequest): Promise<'waiting' | 'admitted'> {
    const id = request.id ?? this.newId();
    for (;;) {
      const result = await this.admission.submit(this.#submission(request, id));
      if (result.status !== 'stale_version') return stateOf(result);
      this.#version = result.version;
    }
  }

  /** Submits and waits for the slot, as a caller does: by the reply or by the event. */
  async acquire(request: EngineRequest): Promise<string> {
    const id = request.id ?? this.newId();
    const admitted = this.admitted(id);
    const state = await this.submit({ ...request, id });
    if (state === 'waiting') await inTime(admitted, id);
    this.#waiters.delete(id);
    return id;
  }

  /** Resolves with the event that the request is admitted; ask before it can be. */
  admitted(id: string): Promise<void> {
    return new Promise((resolve) => this.#waiters.set(id, resolve));
  }

  async release(id: string): Promise<void> {
    const { status } = await this.admission.finish({ id }, { outcome: 'done' });
    if (status !== 'ended') throw new Error(`finish said ${status}`);
  }

  /** Hears of every admission of this gateway's requests. */
  onAdmitted(listener: (id: string) => void): void {
    this.#onAdmitted = listener;
  }

  /** Sweeps until nothing is due soon: what a round left to be forgotten is gone. */
  async settle(): Promise<void> {
    for (;;) {
      await this.admission.sweep({ id: this.id, kind: 'gateway' });
      if (this.#dueInMs > foreverMs / 10) return;
      await new Promise((resolve) => setTimeout(resolve, Math.min(50, Math.max(0, this.#dueInMs))));
    }
  }

  /** When a reply last said that something is left to do at once, on this process's clock, ms. */
  get busyAt(): number {
    return this.#busyAt;
  }

  async waiting(): Promise<number> {
    return (await this.admission.inspectDomain()).waiting;
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#sweeper.stop();
    this.commands.disconnect();
    this.events.disconnect();
  }

  /** A benchmark in which a step failed measures nothing: it ends. */
  #fail(error: unknown): void {
    if (!this.#closing) throw error;
  }

  #onEvent(event: NodeEvent): void {
    if (event.state !== 'admitted') return;
    this.#waiters.get(event.id)?.();
    this.#waiters.delete(event.id);
    this.#onAdmitted?.(event.id);
  }

  #submission({ user, limiters }: EngineRequest, id: string): Submission {
    return {
      id,
      kind: 'flow',
      controlPoint: 'bench',
      labels: { user_id: user, workload: 'default' },
      queue: `bench/default@1/${user}/${limiters.join(',')}`,
      cost: 100,
      version: this.#version,
      owner: this.id,
      timeoutMs: foreverMs,
      maxInflightMs: foreverMs,
    };
  }
}

/** An admission that never comes is an error to be told, not a benchmark that stands still. */
async function inTime(admitted: Promise<void>, id: string): Promise<void> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${id} waits for ${stallMs} ms`)), stallMs);
  await Promise.race([admitted, promise]).finally(() => clearTimeout(timer));
}

function stateOf(result: SubmitResult): 'waiting' | 'admitted' {
  if (result.status === 'accepted' && result.state === 'admitted') return 'admitted';
  if (result.status === 'accepted' && result.state === 'waiting') return 'waiting';
  throw new Error(`submit said ${JSON.stringify(result)}`);
}
