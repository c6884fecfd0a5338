/**
 * Random histories of every step: after each one the invariants hold, and at the end everything
 * accepted has ended once and nothing is left. fast-check prints the seed and the shrunken history;
 * SLUICE_TEST_SEED=<seed>/<path> replays it, SLUICE_TEST_RUNS sets the number of histories.
 */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { domainKey } from '../../src/admission/keys.ts';
import { quotaValues, rateValues } from '../policy/support.ts';
import { testRedis } from '../support/redis.ts';
import { policyDocument, World } from './world.ts';

type Op =
  /** What a shrunken history has in place of what does not matter. */
  | { do: 'nothing' }
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
  | { do: 'policies'; policies: Policies }
  | { do: 'capacity'; pool: 'a' | 'b'; slots: number };

/** Amounts, and what decides where requests wait: those change live. */
interface Policies {
  max: number;
  user: number;
  team: number | undefined;
  /** Tokens of a quota for all, or for each user. */
  quota: number;
  quotaOf: 'none' | 'all' | 'users';
  rate: number;
  waiting: number | undefined;
}

const pick = fc.nat(1_000);
const op: fc.Arbitrary<Op> = fc.oneof(
  { withCrossShrink: true },
  { weight: 1, arbitrary: fc.constant({ do: 'nothing' as const }) },
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
      do: fc.constant('policies' as const),
      policies: fc.record({
        max: fc.integer({ min: 1, max: 6 }),
        user: fc.integer({ min: 1, max: 3 }),
        team: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
        quota: fc.integer({ min: 1_000, max: 3_000 }),
        quotaOf: fc.constantFrom('none' as const, 'all' as const, 'users' as const),
        rate: fc.integer({ min: 5, max: 50 }),
        waiting: fc.constantFrom(undefined, 3, 0),
      }),
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
    const { team, waiting } = { team: undefined, waiting: undefined };
    const amounts = { max: 3, user: 2, team, waiting, quota: 2_000, rate: 50 };
    await this.#apply({ ...amounts, quotaOf: 'none' });
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
      case 'nothing':
        return;
      case 'submit': {
        const { user, paid, cost, kind, owned } = step;
        const id = this.#world.newId();
        const result = await this.#world.submit({
          id,
          labels: { team: `t${user % 2}` },
          user: `u${user}`,
          workload: paid ? 'paid' : 'open',
          priority: paid ? 5 : 1,
          cost,
          timeoutMs: 40_000,
          ...(kind !== 'flow' && { pool: kind, body: 'x'.repeat(cost % 7) }),
          ...(owned && { owner: 'g1' }),
        });
        if (result.status === 'accepted') this.#accepted.push(id);
        else expect(result.status).toBe('rejected');
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
      case 'policies':
        return this.#apply(step.policies);
      case 'capacity':
        this.#capacity[step.pool] = step.slots;
        return this.#beat();
    }
  }

  /** Everything ends by the clock alone. */
  async finish(): Promise<void> {
    const { redis, domain } = this.#world;
    for (let i = 0; i < 70; i++) await this.run({ do: 'pass', ms: 4_000, alive: false });
    await this.#world.check();
    const left = await redis.keys(domainKey(domain, '*'));
    const names = left.map((name) => name.slice(domainKey(domain, '').length));
    const allowed = new Set(['limits', 'meta', 'policies', 'replicas', 'buckets', 'full_at']);
    expect(names.filter((name) => !allowed.has(name) && !name.startsWith('stream:'))).toEqual([]);
  }

  #apply({ max, user, team, quota, quotaOf, rate, waiting }: Policies): Promise<void> {
    const at = (controlPoint: string) => ({ selectors: [{ control_point: controlPoint }] });
    const perLabel = { user_id: user, ...(team !== undefined && { team }) };
    const scheduler = waiting === undefined ? {} : { max_queue_length: waiting };
    const limiter = quotaOf === 'users' ? { limit_by_label_key: 'user_id' } : {};
    const amounts = { bucket_capacity: quota, fill_amount: quota / 10 };
    return this.#world.policies(
      policyDocument({ max, perLabel, scheduler }),
      quotaValues({
        block: { ...amounts, ...at(quotaOf === 'none' ? 'none' : 'prompt') },
        limiter,
      }) as object,
      rateValues({ block: { bucket_capacity: rate, ...at('prompt') } }) as object,
    );
  }

  async #beat(): Promise<void> {
    await this.#world.beat('w1', this.#capacity);
    await this.#world.admission.sweep({ id: 'g1', kind: 'gateway' });
  }
}

function at<Item>(list: readonly Item[], place: number): Item | undefined {
  return list[list.length - 1 - (place % Math.max(1, Math.min(list.length, 12)))];
}

/** Histories at a time: while one waits for Redis another goes on. */
const atOnce = 4;

test('after every step of a random history the invariants hold', async () => {
  const server = await testRedis();
  const redis = server.connect({ enableAutoPipelining: true });
  const property = fc.asyncProperty(
    fc.array(op, { minLength: 20, maxLength: 50, size: 'max' }),
    async (steps) => {
      const world = new World(redis, {});
      const history = new History(world);
      await history.start();
      for (const step of steps) {
        await history.run(step);
        await world.check();
      }
      await history.finish();
    },
  );
  const numRuns = Math.ceil(Number(process.env.SLUICE_TEST_RUNS ?? 150) / atOnce);
  const [seed, path] = (process.env.SLUICE_TEST_SEED ?? '').split('/');
  const from = seed ? { seed: Number(seed), ...(path && { path }) } : {};
  try {
    const many = Array.from({ length: seed ? 1 : atOnce }, () =>
      fc.assert(property, { numRuns, ...from }),
    );
    await Promise.all(many);
  } finally {
    await server.stop();
  }
}, 300_000);
