/**
 * Random histories of every step: after each one the invariants hold, and at the end everything
 * accepted has ended once and nothing is left. fast-check prints the seed and the shrunken history.
 */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { domainKey } from '../../src/admission/keys.ts';
import { testRedis } from '../support/redis.ts';
import { policyDocument, World } from './world.ts';

type Op =
  | {
      do: 'submit';
      user: number;
      paid: boolean;
      cost: number;
      kind: 'flow' | 'a' | 'b';
      owned: boolean;
    }
  | { do: 'begin' | 'end' | 'settle' | 'retry' | 'cancel' | 'repeat'; pick: number }
  | { do: 'pass'; ms: number; alive: boolean }
  | { do: 'limit'; max: number; user: number }
  | { do: 'capacity'; pool: 'a' | 'b'; slots: number };

const pick = fc.nat(1_000);
const op: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('submit' as const),
      user: fc.nat(3),
      paid: fc.boolean(),
      cost: fc.constantFrom(1, 10, 100, 1_000),
      kind: fc.constantFrom('flow' as const, 'a' as const, 'b' as const),
      owned: fc.boolean(),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom('begin', 'end', 'settle', 'retry', 'cancel', 'repeat') as fc.Arbitrary<
        'begin' | 'end' | 'settle' | 'retry' | 'cancel' | 'repeat'
      >,
      pick,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('pass' as const),
      ms: fc.constantFrom(0, 900, 4_000, 6_000, 30_000),
      alive: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('limit' as const),
      max: fc.integer({ min: 1, max: 6 }),
      user: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('capacity' as const),
      pool: fc.constantFrom('a' as const, 'b' as const),
      slots: fc.nat(4),
    }),
  },
);

/** Carries out one history against the real scripts. */
class History {
  readonly #world: World;
  readonly #accepted: string[] = [];
  readonly #capacity: Record<string, number> = { a: 2, b: 1 };

  constructor(world: World) {
    this.#world = world;
  }

  async start(): Promise<void> {
    await this.#limit(3, 2);
    for (const pool of ['a', 'b']) {
      const replica = { id: `r-${pool}`, url: 'http://127.0.0.1:1', protocol: 'ollama' };
      await this.#world.admission.configure({
        replicas: { [pool]: [{ ...replica, max_inflight: 4 }] },
      });
    }
    await this.#beat();
  }

  async run(step: Op): Promise<void> {
    const { admission } = this.#world;
    switch (step.do) {
      case 'submit': {
        const { user, paid, cost, kind, owned } = step;
        const id = await this.#world.add({
          user: `u${user}`,
          workload: paid ? 'paid' : 'open',
          priority: paid ? 5 : 1,
          cost,
          timeoutMs: 40_000,
          ...(kind !== 'flow' && { pool: kind, body: 'x'.repeat(cost % 7) }),
          ...(owned && { owner: 'g1' }),
        });
        this.#accepted.push(id);
        return;
      }
      case 'begin': {
        const job = at(this.#world.dispatched, step.pick);
        if (job) await admission.begin(this.#world.holder(job.id, job.attempt), 'w1');
        return;
      }
      case 'end':
      case 'settle':
      case 'retry': {
        const id = at(this.#accepted, step.pick);
        if (id === undefined) return;
        const { request } = await admission.inspectRequest(id);
        const outcome = step.do === 'retry' ? 'retry' : 'done';
        const tokens = step.do === 'settle' ? (step.pick % 2_000) + 1 : undefined;
        if (request?.kind === 'flow' && outcome === 'retry') return;
        await admission.finish(this.#world.holder(id, request?.attempt), { outcome, tokens });
        return;
      }
      case 'cancel': {
        const id = at(this.#accepted, step.pick);
        if (id !== undefined) await admission.cancel(id, 'test');
        return;
      }
      case 'repeat': {
        const id = at(this.#accepted, step.pick);
        if (id !== undefined)
          expect((await this.#world.submit({ id })).status).not.toBe('accepted');
        return;
      }
      case 'pass':
        this.#world.nowMs += step.ms;
        if (step.alive) await this.#beat();
        await admission.sweep();
        return;
      case 'limit':
        return this.#limit(step.max, step.user);
      case 'capacity':
        this.#capacity[step.pool] = step.slots;
        return this.#beat();
    }
  }

  /** Everything ends by the clock alone. */
  async finish(): Promise<void> {
    const { redis, domain } = this.#world;
    for (let i = 0; i < 80; i++) await this.run({ do: 'pass', ms: 4_000, alive: false });
    await this.#world.check();
    const left = await redis.keys(domainKey(domain, '*'));
    const names = left.map((name) => name.slice(domainKey(domain, '').length));
    const allowed = new Set(['limits', 'meta', 'policies', 'replicas']);
    expect(names.filter((name) => !allowed.has(name) && !name.startsWith('stream:'))).toEqual([]);
  }

  #limit(max: number, user: number): Promise<void> {
    return this.#world.policies(policyDocument({ max, perLabel: { user_id: user } }));
  }

  async #beat(): Promise<void> {
    await this.#world.beat('w1', this.#capacity);
    await this.#world.admission.sweep({ id: 'g1', kind: 'gateway' });
  }
}

function at<Item>(list: readonly Item[], place: number): Item | undefined {
  return list[list.length - 1 - (place % Math.max(1, Math.min(list.length, 12)))];
}

test('after every step of a random history the invariants hold', async () => {
  const server = await testRedis();
  const redis = server.connect();
  try {
    await fc.assert(
      fc.asyncProperty(fc.array(op, { minLength: 5, maxLength: 60 }), async (steps) => {
        const world = new World(redis, {});
        const history = new History(world);
        await history.start();
        for (const step of steps) {
          await history.run(step);
          await world.check();
        }
        await history.finish();
      }),
      { numRuns: Number(process.env.SLUICE_TEST_RUNS ?? 150) },
    );
  } finally {
    await server.stop();
  }
}, 120_000);
