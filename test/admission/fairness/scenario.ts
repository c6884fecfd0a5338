/** Random workloads for the fairness properties, and their play against the real scripts. */

import fc from 'fast-check';
import type { Redis } from 'ioredis';
import { Admission } from '../../../src/admission/admission.ts';
import type { Patch } from '../../../src/admission/scripts.ts';
import { policyDocument, settings, World } from '../world.ts';
import { Ledger } from './ledger.ts';
import { Watch } from './watch.ts';

/** A flow: the requests of one fairness key with one set of labels. */
interface Flow {
  readonly workload: number;
  /** Its fairness key; flows that share one are two queues of it. */
  readonly key: number;
  readonly costs: readonly number[];
  readonly tier: number;
  /** How many it keeps waiting; 0 for one that only comes when told. */
  readonly depth: number;
}

type Op =
  /** A holder is done. */
  | { readonly do: 'end'; readonly pick: number }
  /** A flow sends one request. */
  | { readonly do: 'send'; readonly flow: number }
  /** The oldest request of a flow is cancelled. */
  | { readonly do: 'cancel'; readonly flow: number }
  /** A new key with one request each time a holder is done. */
  | {
      readonly do: 'newcomers';
      readonly count: number;
      readonly cost: number;
      readonly workload: number;
    }
  /** A new key that stays, perhaps of a workload that was not there. */
  | { readonly do: 'join'; readonly flow: Flow }
  /** In a workload whose head is costly and has waited for long, a cheap one goes; then one joins. */
  | {
      readonly do: 'undercut';
      readonly workload: number;
      readonly ends: number;
      readonly flow: Flow;
    };

export interface Scenario {
  readonly slots: number;
  /** Caps for each user and for each value of the label `tier`; 0 for none. */
  readonly perUser: number;
  readonly perTier: number;
  readonly priorities: readonly number[];
  readonly flows: readonly Flow[];
  readonly ops: readonly Op[];
}

const anyCost = fc.oneof(fc.constantFrom(1, 10, 100, 1_000), fc.integer({ min: 1, max: 2_000 }));
const priorities = fc.array(fc.constantFrom(0.1, 0.5, 1, 1, 2, 5, 7.3, 100), {
  minLength: 6,
  maxLength: 6,
});
const anyFlow = (fields: { workloads: number; keys: number; depth?: number; costMax?: number }) =>
  fc.record({
    workload: fc.nat(fields.workloads - 1),
    key: fc.nat(fields.keys - 1),
    costs: fc.array(fields.costMax ? fc.integer({ min: 1, max: fields.costMax }) : anyCost, {
      minLength: 1,
      maxLength: 3,
    }),
    tier: fc.nat(2),
    depth: fields.depth === undefined ? fc.constantFrom(0, 2, 2, 3) : fc.constant(fields.depth),
  });
const end = fc.record({ do: fc.constant('end' as const), pick: fc.nat(100) });
const send = fc.record({ do: fc.constant('send' as const), flow: fc.nat(7) });
const cancel = fc.record({ do: fc.constant('cancel' as const), flow: fc.nat(7) });
const newcomers = fc.record({
  do: fc.constant('newcomers' as const),
  count: fc.integer({ min: 5, max: 25 }),
  cost: fc.integer({ min: 20, max: 200 }),
  workload: fc.nat(1),
});
const join = fc.record({
  do: fc.constant('join' as const),
  flow: anyFlow({ workloads: 6, keys: 40, depth: 2 }),
});
const undercut = fc.record({
  do: fc.constant('undercut' as const),
  workload: fc.constantFrom(2, 3),
  ends: fc.integer({ min: 6, max: 16 }),
  flow: anyFlow({ workloads: 6, keys: 40, depth: 2, costMax: 100 }),
});
const ops = (maxLength: number, ...weighted: readonly (readonly [number, fc.Arbitrary<Op>])[]) =>
  fc.array(fc.oneof(...weighted.map(([weight, arbitrary]) => ({ weight, arbitrary }))), {
    minLength: maxLength / 3,
    maxLength,
    size: 'max',
  });

/** Two levels, weights, flows that stay and flows that come and go; no caps, so most are eligible. */
export const sharing: fc.Arbitrary<Scenario> = fc.record({
  slots: fc.integer({ min: 1, max: 6 }),
  perUser: fc.constant(0),
  perTier: fc.constant(0),
  priorities,
  flows: fc.array(anyFlow({ workloads: 4, keys: 8 }), { minLength: 2, maxLength: 7 }),
  ops: ops(90, [12, end], [3, send], [2, cancel], [2, join]),
});

/** Few slots, costly requests, and newcomers without end. */
export const crowding: fc.Arbitrary<Scenario> = fc.record({
  slots: fc.integer({ min: 1, max: 2 }),
  perUser: fc.constant(0),
  perTier: fc.constant(0),
  priorities,
  flows: fc.array(anyFlow({ workloads: 2, keys: 4 }), { minLength: 1, maxLength: 4 }),
  ops: ops(36, [4, end], [2, send], [1, cancel], [2, newcomers]),
});

/** Workloads whose head costs much, waits for long, and is overtaken by a cheap one of their own. */
export const undercutting: fc.Arbitrary<Scenario> = fc.record({
  slots: fc.integer({ min: 1, max: 2 }),
  perUser: fc.constant(0),
  perTier: fc.constant(0),
  priorities,
  flows: fc.array(anyFlow({ workloads: 2, keys: 4, depth: 2, costMax: 100 }), {
    minLength: 1,
    maxLength: 3,
  }),
  ops: ops(9, [1, end], [1, join], [3, undercut]),
});

/** Caps of users and tiers: at any time some are blocked, some of them on two limiters. */
export const blocking: fc.Arbitrary<Scenario> = fc.record({
  slots: fc.integer({ min: 3, max: 8 }),
  perUser: fc.integer({ min: 1, max: 4 }),
  perTier: fc.integer({ min: 1, max: 3 }),
  priorities,
  flows: fc.array(anyFlow({ workloads: 2, keys: 5 }), { minLength: 3, maxLength: 8 }),
  ops: ops(90, [12, end], [3, send], [2, cancel], [2, join]),
});

/** A world whose scripts are changed. */
export class PatchedWorld extends World {
  override readonly admission: Admission;

  constructor(redis: Redis, patch?: Patch) {
    super(redis, {});
    const { domain } = this;
    this.admission = new Admission({ redis, domain, settings, clock: () => this.nowMs, patch });
  }
}

/** Plays a scenario in a domain of its own. Throws what the ledger finds. */
export async function play(
  scenario: Scenario,
  redis: Redis,
  subscriber: Redis,
  patch?: Patch,
): Promise<void> {
  const world = new PatchedWorld(redis, patch);
  const watch = new Watch(redis, subscriber, world.domain, 'g1');
  await watch.start();
  try {
    const run = new Run(scenario, world, watch);
    await run.start();
    for (const op of scenario.ops) await run.step(op);
  } finally {
    await watch.stop();
    const keys = await redis.keys(`sluice:{${world.domain}}:*`);
    if (keys.length > 0) await redis.unlink(...keys);
  }
}

class Run {
  readonly #scenario: Scenario;
  readonly #world: World;
  readonly #watch: Watch;
  readonly #ledger: Ledger;
  readonly #flows: Flow[];
  /** Requests sent by each flow. */
  readonly #sent = new Map<Flow, string[]>();
  #newcomers = 0;

  constructor(scenario: Scenario, world: World, watch: Watch) {
    const { slots, perUser, perTier } = scenario;
    this.#scenario = scenario;
    this.#world = world;
    this.#watch = watch;
    this.#flows = [...scenario.flows];
    this.#ledger = new Ledger((limiter) => {
      if (limiter === 'slots') return slots;
      return limiter.startsWith('user') ? perUser : perTier;
    });
  }

  async start(): Promise<void> {
    const { slots, perUser, perTier } = this.#scenario;
    const perLabel = { ...(perUser && { user_id: perUser }), ...(perTier && { tier: perTier }) };
    await this.#world.policies(policyDocument({ max: slots, perLabel }));
    // With every slot taken, who comes first among the flows makes no difference.
    for (let i = 0; i < slots; i++) {
      await this.#send({ workload: 0, key: 100 + i, costs: [1], tier: 100 + i, depth: 0 });
    }
    await this.#refill();
  }

  async step(op: Op): Promise<void> {
    switch (op.do) {
      case 'end':
        await this.#end(op.pick);
        break;
      case 'send': {
        const flow = this.#flows[op.flow % this.#flows.length];
        if (flow) await this.#send(flow);
        break;
      }
      case 'cancel':
        await this.#cancel(op.flow);
        break;
      case 'newcomers':
        for (let i = 0; i < op.count; i++) {
          await this.#send(this.#newcomer(op.workload, op.cost));
          await this.#end(0);
        }
        break;
      case 'undercut':
        await this.#send(this.#newcomer(op.workload, 10_000));
        for (let i = 0; i < op.ends; i++) {
          await this.#end(i);
          await this.#refill();
        }
        await this.#send(this.#newcomer(op.workload, 1));
        await this.#end(0);
        this.#flows.push(op.flow);
        for (let i = 0; i < op.ends; i++) {
          await this.#refill();
          await this.#end(i);
        }
        break;
      case 'join':
        this.#flows.push(op.flow);
        break;
    }
    await this.#refill();
  }

  #newcomer(workload: number, cost: number): Flow {
    const key = 1_000 + this.#newcomers++;
    return { workload, key, costs: [cost], tier: key, depth: 0 };
  }

  async #end(pick: number): Promise<void> {
    const { holders } = this.#ledger;
    const id = holders[pick % Math.max(1, holders.length)];
    if (id === undefined) return;
    this.#ledger.ended(id);
    await this.#world.end(id);
    await this.#settle();
  }

  async #cancel(place: number): Promise<void> {
    const flow = this.#flows[place % this.#flows.length];
    const waiting = flow && this.#waiting(flow);
    const id = waiting?.[0];
    if (id === undefined) return;
    this.#ledger.left(id);
    await this.#world.admission.cancel(id, 'test');
    await this.#settle();
  }

  /** Flows that keep requests waiting send what they lack. */
  async #refill(): Promise<void> {
    for (const flow of this.#flows) {
      // What is sent with all slots taken admits nobody, so it can go in one turn.
      while (!this.#ledger.isFull('slots') && this.#lacks(flow) > 0) await this.#send(flow);
    }
    const missing = this.#flows.flatMap((flow) => Array<Flow>(this.#lacks(flow)).fill(flow));
    await Promise.all(missing.map((flow) => this.#submit(flow)));
  }

  #lacks(flow: Flow): number {
    return Math.max(0, flow.depth - this.#waiting(flow).length);
  }

  #waiting(flow: Flow): string[] {
    return (this.#sent.get(flow) ?? []).filter((id) => this.#ledger.waits(id));
  }

  async #send(flow: Flow): Promise<void> {
    await this.#submit(flow);
    await this.#settle();
  }

  async #submit(flow: Flow): Promise<void> {
    const { workload: place, key, costs, tier } = flow;
    const sent = this.#sent.get(flow) ?? [];
    this.#sent.set(flow, sent);
    const id = this.#world.newId();
    const weight = this.#scenario.priorities[place] ?? 1;
    const cost = costs[sent.length % costs.length] ?? 1;
    const workload = `w${place}`;
    sent.push(id);
    const user = `${workload}-k${key}`;
    const { perUser, perTier } = this.#scenario;
    this.#ledger.arrived({
      id,
      workload,
      weight,
      key: user,
      cost,
      limiters: [
        ...(perUser ? [`user ${user}`] : []),
        ...(perTier ? [`tier ${tier}`] : []),
        'slots',
      ],
    });
    const labels = { tier: `t${tier}` };
    const request = { id, user, workload, priority: weight, cost, labels, owner: 'g1' };
    const result = await this.#world.submit(request);
    // Who is admitted at once hears it in the answer.
    if (result.status === 'accepted' && result.state === 'admitted') this.#admit(id);
  }

  /** After a step: who was admitted, in order, and whether nobody was forgotten. */
  async #settle(): Promise<void> {
    for (const id of await this.#watch.admitted()) this.#admit(id);
    this.#ledger.settled();
  }

  #admit(id: string): void {
    if (this.#ledger.waits(id)) this.#ledger.admitted(id);
  }
}
