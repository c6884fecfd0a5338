/** What random histories are made of. Numbers named `pick` choose among what is there at the time. */

import fc from 'fast-check';
import type { Bucket } from '../../../src/admission/index.ts';
import type { Put } from './pool.ts';

/** What decides where a request waits; policies put it into a queue by it, see {@link queueOf}. */
export interface Asked {
  readonly policy: 'p0' | 'p1';
  readonly workload: number;
  readonly key: number;
  readonly user: number;
  readonly team: number;
  readonly prompt: boolean;
}

export interface SubmitOp extends Asked {
  readonly do: 'submit';
  readonly gateway: number;
  readonly owned: boolean;
  readonly cost: number;
  /** Tokens drawn from the rate limits, 0 for none. */
  readonly rate: number;
  readonly userRate: number;
  readonly timeoutMs: number;
  readonly maxInflightMs: number;
  readonly bytes: number;
  readonly lengthLimit: number | undefined;
  readonly workloadLimit: number | undefined;
  /** Whether limits for values of labels refuse who finds them full. */
  readonly refuses: boolean;
}

export interface BeginOp {
  readonly do: 'begin';
  readonly gateway: number;
  readonly pick: number;
}

export interface FinishOp {
  readonly do: 'finish';
  readonly gateway: number;
  readonly pick: number;
  readonly outcome: 'done' | 'failed' | 'retry';
  readonly tokens: number | undefined;
  readonly unavailable: boolean;
  readonly replicaDownMs: number | undefined;
  readonly isSure: boolean;
}

export interface CancelOp {
  readonly do: 'cancel';
  readonly gateway: number;
  readonly pick: number;
}

/** What policies say of queues: which limits a request needs, and how workloads share. */
export interface Layout {
  readonly perUser: boolean;
  readonly perTeam: boolean;
  readonly global: boolean;
  readonly quota: 'none' | 'q' | 'qu' | 'both';
  readonly priorities: 0 | 1 | 2;
}

export type ReplicaChange =
  | { readonly to: 'put'; readonly put: Put }
  | { readonly to: 'drain'; readonly deadlineMs: number | undefined }
  | { readonly to: 'remove' };

export type Op =
  /** What a shrunken history has in place of what does not matter. */
  | { readonly do: 'nothing' }
  | SubmitOp
  | BeginOp
  | FinishOp
  | CancelOp
  /** Made in one turn of the event loop, so they share a step. */
  | { readonly do: 'batch'; readonly of: readonly (SubmitOp | BeginOp | FinishOp | CancelOp)[] }
  | { readonly do: 'repeat' | 'renew' | 'keep' | 'acknowledge'; readonly pick: number }
  | { readonly do: 'outdated'; readonly submit: SubmitOp }
  | { readonly do: 'pass'; readonly ms: number; readonly sweeps: boolean; readonly alive: boolean }
  | { readonly do: 'worker'; readonly worker: number; readonly slots: number }
  | { readonly do: 'leave'; readonly member: string }
  | { readonly do: 'replicas'; readonly takes: readonly number[] }
  | { readonly do: 'replica'; readonly id: string; readonly change: ReplicaChange }
  | { readonly do: 'slots'; readonly key: string; readonly units: number | undefined }
  | { readonly do: 'bucket'; readonly key: string; readonly bucket: Bucket | undefined }
  | { readonly do: 'layout'; readonly layout: Layout }
  /** Keys some requests anew, if that is to be done. */
  | {
      readonly do: 'rekey';
      readonly items: number;
      readonly takeOver: boolean;
      readonly late: boolean;
    };

/** How often what happens. */
export interface Weights {
  readonly submit: number;
  readonly begin: number;
  readonly finish: number;
  readonly cancel: number;
  readonly batch: number;
  readonly again: number;
  readonly pass: number;
  readonly members: number;
  readonly slots: number;
  readonly buckets: number;
  readonly layout: number;
}

export interface Theme {
  readonly weights: Weights;
  /** Of requests that are prompts, in percent. */
  readonly prompts: number;
  /** Of requests that draw from rate limits, in percent. */
  readonly rates: number;
  readonly quotas: boolean;
  readonly costs: readonly number[];
  /** What requests turn out to have cost; undefined for what was charged. */
  readonly tokens: readonly (number | undefined)[];
}

const percent = (of: number) => fc.nat(99).map((one) => one < of);
const gateway = fc.nat(1);
const pick = fc.nat(1_000);

const bucket: fc.Arbitrary<Bucket> = fc.record({
  // Hardly ever twice the same: a change is always one.
  capacity: fc.integer({ min: 100, max: 1_500 }),
  fillAmount: fc.constantFrom(0.5, 7, 50, 100, 333),
  intervalMs: fc.constantFrom(100, 1_000, 7_000),
  continuous: fc.boolean(),
  delayInitialFill: fc.boolean(),
});

function submitOf(theme: Theme): fc.Arbitrary<SubmitOp> {
  const limit = fc.constantFrom(undefined, undefined, undefined, undefined, 0, 2, 5);
  return fc.record({
    do: fc.constant('submit' as const),
    gateway,
    // Mostly one policy and two workloads, so that there is something to choose from.
    policy: fc.constantFrom('p0' as const, 'p0' as const, 'p0' as const, 'p1' as const),
    workload: fc.constantFrom(0, 0, 0, 1, 1, 2),
    key: fc.nat(2),
    user: fc.nat(2),
    team: fc.nat(1),
    prompt: percent(theme.prompts),
    owned: percent(85),
    cost: fc.constantFrom(...theme.costs),
    rate: percent(theme.rates).chain((draws) =>
      draws ? fc.integer({ min: 1, max: 300 }) : fc.constant(0),
    ),
    userRate: percent(theme.rates / 2).chain((draws) => fc.constant(draws ? 1 : 0)),
    timeoutMs: fc.constantFrom(12_000, 40_000, 1e9, 1e9, 1e9, 0),
    maxInflightMs: fc.constantFrom(9_000, 60_000, 1e9),
    bytes: fc.constantFrom(0, 0, 3, 900),
    lengthLimit: limit,
    workloadLimit: limit,
    refuses: percent(10),
  });
}

const begin: fc.Arbitrary<BeginOp> = fc.record({
  do: fc.constant('begin' as const),
  gateway,
  pick,
});

function finishOf(theme: Theme): fc.Arbitrary<FinishOp> {
  return fc.record({
    do: fc.constant('finish' as const),
    gateway,
    pick,
    outcome: fc.constantFrom('done' as const, 'done' as const, 'failed' as const, 'retry' as const),
    tokens: fc.constantFrom(...theme.tokens),
    unavailable: fc.boolean(),
    replicaDownMs: fc.constantFrom(undefined, 200, 900, 3_000),
    isSure: fc.boolean(),
  });
}

const cancel: fc.Arbitrary<CancelOp> = fc.record({
  do: fc.constant('cancel' as const),
  gateway,
  pick,
});

function layoutOf(theme: Theme): fc.Arbitrary<Layout> {
  return fc.record({
    perUser: fc.boolean(),
    perTeam: fc.boolean(),
    global: fc.boolean(),
    quota: theme.quotas
      ? fc.constantFrom('none' as const, 'q' as const, 'qu' as const, 'both' as const)
      : fc.constant('none' as const),
    priorities: fc.constantFrom(0 as const, 1 as const, 2 as const),
  });
}

const put: fc.Arbitrary<Put> = fc.record(
  {
    maxInflight: fc.integer({ min: 1, max: 3 }),
    state: fc.constantFrom('ready' as const, 'ready' as const, 'draining' as const),
    ttlMs: fc.constantFrom(900, 5_000),
  },
  { requiredKeys: ['maxInflight'] },
);

const replicaChange: fc.Arbitrary<ReplicaChange> = fc.oneof(
  { weight: 3, arbitrary: put.map((one) => ({ to: 'put' as const, put: one })) },
  {
    weight: 2,
    arbitrary: fc
      .constantFrom(undefined, 0, 900, 4_000)
      .map((deadlineMs) => ({ to: 'drain' as const, deadlineMs })),
  },
  { weight: 1, arbitrary: fc.constant({ to: 'remove' as const }) },
);

/** Limits on slots that a history changes, and those on tokens. */
const slotKeys = ['p0', 'p1', 'p0.user', 'p0.team', 'p1.team'];
const bucketKeys = ['q', 'qu.user', 'r', 'ru.user'];

export function opOf(theme: Theme): fc.Arbitrary<Op> {
  const { weights } = theme;
  const submit = submitOf(theme);
  const finish = finishOf(theme);
  const some = <Item>(one: fc.Arbitrary<Item>) => fc.array(one, { minLength: 2, maxLength: 8 });
  const batch = fc.oneof(
    { weight: 3, arbitrary: some(submit) },
    { weight: 2, arbitrary: some(finish) },
    { weight: 1, arbitrary: some(cancel) },
    { weight: weights.begin > 0 ? 2 : 0, arbitrary: some(begin) },
    { weight: 1, arbitrary: some(fc.oneof(submit, finish, cancel)) },
  );
  return fc.oneof(
    { withCrossShrink: true },
    { weight: 1, arbitrary: fc.constant({ do: 'nothing' as const }) },
    { weight: weights.submit, arbitrary: submit },
    { weight: weights.begin, arbitrary: begin },
    { weight: weights.finish, arbitrary: finish },
    { weight: weights.cancel, arbitrary: cancel },
    {
      weight: weights.batch,
      arbitrary: fc.record({ do: fc.constant('batch' as const), of: batch }),
    },
    {
      weight: weights.again,
      arbitrary: fc.record({
        do: fc.constantFrom(
          'repeat' as const,
          'renew' as const,
          'keep' as const,
          'acknowledge' as const,
        ),
        pick,
      }),
    },
    {
      weight: Math.ceil(weights.again / 2),
      arbitrary: fc.record({ do: fc.constant('outdated' as const), submit }),
    },
    {
      weight: weights.pass,
      arbitrary: fc.record({
        do: fc.constant('pass' as const),
        ms: fc.constantFrom(0, 1, 137, 900, 900, 2_500, 4_000, 6_000, 15_000),
        sweeps: percent(80),
        alive: percent(80),
      }),
    },
    {
      weight: weights.members,
      arbitrary: fc.record({
        do: fc.constant('worker' as const),
        worker: fc.nat(1),
        slots: fc.nat(3),
      }),
    },
    {
      weight: Math.ceil(weights.members / 3),
      arbitrary: fc.record({
        do: fc.constant('leave' as const),
        member: fc.constantFrom('w0', 'w1', 'g1'),
      }),
    },
    {
      weight: Math.ceil(weights.members / 2),
      arbitrary: fc.record({
        do: fc.constant('replicas' as const),
        takes: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }),
      }),
    },
    {
      weight: weights.members,
      arbitrary: fc.record({
        do: fc.constant('replica' as const),
        id: fc.constantFrom('r0', 'r1', 'r2', 'r3'),
        change: replicaChange,
      }),
    },
    {
      weight: weights.slots,
      arbitrary: fc.record({
        do: fc.constant('slots' as const),
        key: fc.constantFrom(...slotKeys),
        units: fc.constantFrom(1, 1, 2, 3, 4, undefined),
      }),
    },
    {
      weight: weights.buckets,
      arbitrary: fc.record({
        do: fc.constant('bucket' as const),
        key: fc.constantFrom(...bucketKeys),
        bucket: fc.option(bucket, { freq: 6, nil: undefined }),
      }),
    },
    {
      weight: weights.layout,
      arbitrary: fc.record({ do: fc.constant('layout' as const), layout: layoutOf(theme) }),
    },
    {
      weight: weights.layout * 4,
      arbitrary: fc.record({
        do: fc.constant('rekey' as const),
        items: fc.integer({ min: 1, max: 12 }),
        takeOver: percent(15),
        late: percent(10),
      }),
    },
  );
}

const workloadsBy = [
  ['open@1', 'paid@5', 'slow@0.1'],
  ['open@1', 'paid@2', 'slow@1'],
  ['all@1', 'all@1', 'slow@0.5'],
] as const;

/** Where the policies put a request: labels' slots, pool, global slots, quotas. */
export function queueOf(asked: Asked, layout: Layout): string {
  const { policy, user, team } = asked;
  const { perUser, perTeam, global, quota, priorities } = layout;
  const limiters = [
    // A request without the label passes its limit.
    ...(perUser && policy === 'p0' && user < 2 ? [`p0.user=u${user}`] : []),
    ...(perTeam ? [`${policy}.team=t${team}`] : []),
    ...(asked.prompt ? ['pool:gpu'] : []),
    ...(global ? [policy] : []),
    ...(quota === 'qu' || quota === 'both' ? [`qu.user=u${user}`] : []),
    ...(quota === 'q' || quota === 'both' ? ['q'] : []),
  ];
  const workload = workloadsBy[priorities][asked.workload] ?? 'open@1';
  return `${policy}/${workload}/k${asked.key}/${limiters.join(',')}`;
}
