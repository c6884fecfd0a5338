/**
 * The order of admission against the reference model: random histories of arrivals, ends with other
 * tokens than charged, cancels and limits, over several policies, workloads, keys and limiters. The
 * scripts and the model must admit the same requests in the same order, step by step.
 */

import fc from 'fast-check';
import type { Redis } from 'ioredis';
import { expect, test } from 'vitest';
import { nodeChannel } from '../../src/admission/index.ts';
import { testRedis } from '../support/redis.ts';
import { Model } from './model.ts';
import { World } from './world.ts';

type Op =
  | {
      do: 'submit';
      policy: 0 | 1;
      workload: number;
      key: number;
      label: number;
      pool: boolean;
      cost: number;
    }
  | { do: 'end'; pick: number; tokens: number | undefined }
  | { do: 'cancel'; pick: number }
  | { do: 'limit'; which: number; units: number };

const workloads = ['open@1', 'paid@5', 'slow@0.1'];
const limitKeys = ['p0', 'p1', 'p0.user', 'p1.team', 'pool:gpu'];

const op: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 9,
    arbitrary: fc.record({
      do: fc.constant('submit' as const),
      // Mostly one policy and two workloads, so that there is something to choose from.
      policy: fc.constantFrom(0 as const, 0 as const, 0 as const, 1 as const),
      workload: fc.constantFrom(0, 0, 0, 1, 1, 2),
      key: fc.nat(2),
      label: fc.nat(2),
      pool: fc.boolean(),
      cost: fc.constantFrom(1, 7, 100, 100, 150, 1_000, 10_000_000),
    }),
  },
  {
    weight: 7,
    arbitrary: fc.record({
      do: fc.constant('end' as const),
      pick: fc.nat(100),
      tokens: fc.option(fc.constantFrom(1, 50, 5_000), { nil: undefined }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('cancel' as const), pick: fc.nat(100) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('limit' as const),
      which: fc.nat(limitKeys.length - 1),
      units: fc.integer({ min: 1, max: 4 }),
    }),
  },
);

/** The queue of a submit: some need one limiter, some three; a fairness key has up to six queues. */
function queueOf(submit: Extract<Op, { do: 'submit' }>): string {
  const policy = `p${submit.policy}`;
  const label = submit.policy === 0 ? `p0.user=u${submit.label}` : `p1.team=t${submit.label}`;
  const limiters = [
    ...(submit.label < 2 ? [label] : []),
    ...(submit.pool ? ['pool:gpu'] : []),
    policy,
  ];
  return `${policy}/${workloads[submit.workload]}/k${submit.key}/${limiters.join(',')}`;
}

class Comparison {
  readonly #world: World;
  readonly #events: Events;
  readonly #model = new Model();
  readonly #waiting: string[] = [];
  readonly #held: string[] = [];
  readonly #limits: Record<string, number> = { p0: 3, p1: 3, 'p0.user': 1, 'p1.team': 2 };

  constructor(world: World, events: Events) {
    this.#world = world;
    this.#events = events;
  }

  async start(): Promise<void> {
    await this.#configure();
    await this.#world.pool('gpu', 2);
    for (const [key, units] of Object.entries(this.#limits)) this.#model.setLimit(key, units);
    this.#model.setLimit('pool:gpu', 2);
  }

  async run(step: Op): Promise<void> {
    const expected = await this.#both(step);
    // Each admission notes its place: flows are admitted without anybody's help.
    const actual = await this.#admittedNow();
    expect(actual, `admitted by ${JSON.stringify(step)}`).toEqual(expected);
  }

  async #both(step: Op): Promise<string[]> {
    const { admission } = this.#world;
    switch (step.do) {
      case 'submit': {
        const id = this.#world.newId();
        const queue = queueOf(step);
        this.#waiting.push(id);
        const result = await admission.submit({
          id,
          kind: 'flow',
          owner: this.#events.node,
          controlPoint: 'prompt',
          labels: {},
          queue,
          cost: step.cost,
          version: this.#world.version,
          timeoutMs: 1e9,
          maxInflightMs: 1e9,
        });
        if (result.status === 'accepted' && result.state === 'admitted') this.#events.note(id);
        return this.#model.submit(id, queue, step.cost);
      }
      case 'end': {
        const id = take(this.#held, step.pick);
        if (id === undefined) return [];
        await this.#world.end(id, step.tokens);
        return this.#model.end(id, step.tokens);
      }
      case 'cancel': {
        const id = take(this.#waiting, step.pick);
        if (id === undefined) return [];
        await admission.cancel(id, 'test');
        return this.#model.end(id);
      }
      case 'limit': {
        const key = limitKeys[step.which] ?? 'p0';
        this.#model.setLimit(key, step.units);
        if (key === 'pool:gpu') await this.#world.pool('gpu', step.units);
        else {
          this.#limits[key] = step.units;
          await this.#configure();
        }
        return this.#model.admit();
      }
    }
  }

  /** Who holds slots now and did not before, in the order in which the scripts published it. */
  async #admittedNow(): Promise<string[]> {
    const fresh = await this.#events.admitted();
    for (const id of fresh) {
      this.#waiting.splice(this.#waiting.indexOf(id), 1);
      this.#held.push(id);
    }
    return fresh;
  }

  async #configure(): Promise<void> {
    const limits = Object.entries(this.#limits);
    const policies = ['p0', 'p1'].map((name) => ({
      name,
      version: JSON.stringify(this.#limits),
      structure: name,
      source: 'test',
      document: {},
      limits: Object.fromEntries(limits.filter(([key]) => key.startsWith(name))),
    }));
    this.#world.version = (await this.#world.admission.configure({ policies })).version;
  }
}

/** What the scripts publish to a gateway, up to now. */
class Events {
  readonly node = 'g1';
  readonly #redis: Redis;
  readonly #channel: string;
  #admitted: string[] = [];
  #mark: (() => void) | undefined;

  constructor(redis: Redis, subscriber: Redis, domain: string) {
    this.#redis = redis;
    this.#channel = nodeChannel(domain, this.node);
    subscriber.on('message', (channel: string, text: string) => {
      if (channel !== this.#channel) return;
      for (const event of JSON.parse(text) as { id: string; state: string }[]) {
        if (event.state === 'mark') this.#mark?.();
        if (event.state === 'admitted') this.#admitted.push(event.id);
      }
    });
  }

  /** Admitted by its own submit, whose reply says so. */
  note(id: string): void {
    this.#admitted.push(id);
  }

  subscribe(subscriber: Redis): Promise<unknown> {
    return subscriber.subscribe(this.#channel);
  }

  /** Ids in the order of their admission since the last call. A mark tells that all have come. */
  async admitted(): Promise<string[]> {
    const marked = new Promise<void>((resolve) => {
      this.#mark = resolve;
    });
    await this.#redis.publish(this.#channel, JSON.stringify([{ state: 'mark' }]));
    await marked;
    const ids = this.#admitted;
    this.#admitted = [];
    return ids;
  }
}

function take(list: string[], pick: number): string | undefined {
  return list.length === 0 ? undefined : list.splice(pick % list.length, 1)[0];
}

test('the scripts admit in the order of the reference model', async () => {
  const server = await testRedis();
  const redis = server.connect();
  const subscriber = server.connect();
  try {
    await fc.assert(
      fc.asyncProperty(
        fc.array(op, { minLength: 40, maxLength: 100, size: 'max' }),
        async (steps) => {
          const world = new World(redis, {});
          const events = new Events(redis, subscriber, world.domain);
          await events.subscribe(subscriber);
          const comparison = new Comparison(world, events);
          await comparison.start();
          for (const step of steps) await comparison.run(step);
          await subscriber.unsubscribe();
          subscriber.removeAllListeners('message');
        },
      ),
      { numRuns: Number(process.env.SLUICE_TEST_RUNS ?? 40) },
    );
  } finally {
    await server.stop();
  }
}, 120_000);
