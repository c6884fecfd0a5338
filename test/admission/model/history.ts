/** Carries out one history in Redis and in the model, and compares them after every step. */

import { isDeepStrictEqual } from 'node:util';
import { expect } from 'vitest';
import type {
  Bucket,
  PolicyRecord,
  ReplicaGiven,
  Submission,
} from '../../../src/admission/index.ts';
import { checkSnapshot, type Snapshot, same } from '../invariants.ts';
import { type Limit, Model, type Told } from '../model.ts';
import { ModelBucket, parseBucket, type StoredBucket } from './bucket.ts';
import { type Lane, laneSettings } from './lane.ts';
import {
  type Asked,
  type BeginOp,
  type CancelOp,
  type FinishOp,
  type Layout,
  type Op,
  queueOf,
  type SubmitOp,
} from './ops.ts';

/** A call, made in Redis at once, and afterwards in the model. */
interface Call {
  readonly actual: Promise<unknown>;
  readonly expected: () => unknown;
}

interface Attempt {
  readonly id: string;
  readonly attempt: number;
}

const firstLayout: Layout = {
  perUser: true,
  perTeam: true,
  global: true,
  quota: 'q',
  priorities: 0,
};

const evenly: Bucket = {
  capacity: 600,
  fillAmount: 50,
  intervalMs: 1_000,
  continuous: true,
  delayInitialFill: false,
};

const firstLimits: readonly (readonly [string, Limit])[] = [
  ['p0', 3],
  ['p1', 3],
  ['p0.user', 1],
  ['p0.team', 2],
  ['p1.team', 2],
  ['q', evenly],
  ['qu.user', { ...evenly, capacity: 400, continuous: false, intervalMs: 7_000, fillAmount: 200 }],
  ['r', { ...evenly, capacity: 500, delayInitialFill: true }],
  ['ru.user', { ...evenly, capacity: 3, fillAmount: 1, continuous: false }],
];

const address = { url: 'http://127.0.0.1:1', protocol: 'ollama' };

export class History {
  readonly #lane: Lane;
  readonly #model: Model;
  readonly #asked = new Map<string, Submission & Asked>();
  readonly #dispatched: Attempt[] = [];
  readonly #limits = new Map<string, Limit>(firstLimits);
  readonly #slots = new Map<string, number>();
  #layout: Layout;
  #buckets: ReadonlyMap<string, StoredBucket> = new Map();
  /** Who is still to be keyed anew, for which version. */
  #unkeyed: { readonly version: number; readonly ids: string[] } | undefined;

  constructor(lane: Lane, quotas: boolean) {
    this.#lane = lane;
    this.#layout = { ...firstLayout, quota: quotas ? firstLayout.quota : 'none' };
    this.#model = new Model(laneSettings);
  }

  async start(): Promise<void> {
    await this.#lane.reset();
    this.#model.nowMs = this.#lane.nowMs;
    await this.#configure(this.#limits, true);
    await this.#replicas([2, 1]);
    await this.#sweep('g0', 'g1');
    this.#slots.set('w0', 2);
    await this.#sweep('w0');
    await this.#compare('start');
  }

  async run(op: Op): Promise<void> {
    const did = await this.#do(op);
    if (did) await this.#compare(op);
  }

  /** Everything ends, the rest by the clock, and leaves nothing. */
  async finish(): Promise<void> {
    while (this.#model.rekeying !== undefined) {
      await this.run({ do: 'rekey', items: 100, takeOver: false, late: false });
    }
    // In the order that its past has made; a pool may be closed.
    for (let round = 0; round < 12 && (await this.#endWhatRuns()); round++);
    // Then members are taken for dead, some time after nobody had swept for so long.
    for (const ms of [1e9, 4_000, 4_000, 4_000]) {
      await this.run({ do: 'pass', ms, sweeps: true, alive: false });
    }
    expect(this.#model.liveIds()).toEqual([]);
    const kept = ['limits', 'meta', 'policies', 'replicas', 'buckets', 'full_at'];
    const left = (await this.#lane.keys()).filter((name) => !kept.includes(name));
    expect(left.filter((name) => !/^(jobs_)?ended/.test(name))).toEqual([]);
  }

  /** All that hold slots end; whether there were any. */
  async #endWhatRuns(): Promise<boolean> {
    const ids = this.#model.liveIds().filter((id) => this.#model.stateOf(id) !== 'waiting');
    const holders = ids.map((id) => this.#model.holderOf(id));
    const finish = { do: 'finish', outcome: 'done', tokens: undefined } as const;
    const more = {
      gateway: 0,
      pick: 1,
      unavailable: false,
      replicaDownMs: undefined,
      isSure: true,
    };
    const isAdmitted = (id: string) => this.#model.stateOf(id) === 'admitted';
    const isPrompt = (id: string) => this.#asked.get(id)?.kind === 'prompt';
    const begins = holders.filter(({ id }) => isPrompt(id) && isAdmitted(id));
    await this.#all(begins.map((holder) => this.#begin(holder, { ...more, do: 'begin' })));
    await this.#all(ids.map((id) => this.#end(id, { ...finish, ...more })));
    await this.#compare('the end');
    return ids.length > 0;
  }

  /** Whether anything was done. */
  async #do(op: Op): Promise<boolean> {
    switch (op.do) {
      case 'nothing':
        return false;
      case 'submit':
      case 'begin':
      case 'finish':
      case 'cancel':
        return this.#all(this.#call(op));
      case 'batch':
        return this.#batch(op.of);
      case 'repeat':
        return this.#repeat(op.pick);
      case 'renew':
        return this.#renew(op.pick);
      case 'keep':
        return this.#keep(op.pick);
      case 'acknowledge':
        return this.#acknowledge(op.pick);
      case 'outdated':
        return this.#all([this.#submit(op.submit, this.#model.version - 1)]);
      case 'pass':
        return this.#pass(op);
      case 'worker':
        this.#slots.set(`w${op.worker}`, op.slots);
        return this.#sweep(`w${op.worker}`);
      case 'leave':
        return this.#leave(op.member);
      case 'replicas':
        return this.#replicas(op.takes);
      case 'replica':
        return this.#replica(op);
      case 'slots':
        return this.#setLimit(op.key, op.units);
      case 'bucket':
        return this.#setLimit(op.key, op.bucket);
      case 'layout':
        this.#layout = op.layout;
        return this.#configure(new Map(), true);
      case 'rekey':
        return this.#rekey(op);
    }
  }

  /** Calls made in one turn of the event loop are as if they had come one after the other. */
  async #all(calls: readonly Call[]): Promise<boolean> {
    const actual = await Promise.all(calls.map((call) => call.actual));
    const expected = calls.map((call) => call.expected());
    same(actual, expected, 'results');
    return calls.length > 0;
  }

  /** Of several kinds: those of a kind share a step, and go out when the first of them was made. */
  #batch(ops: readonly (SubmitOp | BeginOp | FinishOp | CancelOp)[]): Promise<boolean> {
    const gateway = ops[0]?.gateway ?? 0;
    const groups = Map.groupBy(ops, (op) => op.do);
    const calls = [...groups.values()].flat().flatMap((op) => this.#call({ ...op, gateway }));
    return this.#all(calls);
  }

  #call(op: SubmitOp | BeginOp | FinishOp | CancelOp): Call[] {
    switch (op.do) {
      case 'submit':
        return [this.#submit(op, this.#model.version)];
      case 'begin': {
        const job = recent(this.#dispatched, op.pick);
        return job ? [this.#begin(job, op)] : [];
      }
      case 'finish': {
        const id = this.#pick(op.pick, 'held');
        return id === undefined ? [] : [this.#end(id, op)];
      }
      case 'cancel': {
        const id = this.#pick(op.pick, 'any');
        return id === undefined ? [] : [this.#cancel(id, op.gateway)];
      }
    }
  }

  #submit(op: SubmitOp, version: number): Call {
    const id = this.#lane.newId();
    const rates = [
      ...(op.rate > 0 ? [{ limiter: 'r', tokens: op.rate }] : []),
      ...(op.userRate > 0 ? [{ limiter: `ru.user=u${op.user}`, tokens: op.userRate }] : []),
    ];
    const queue = queueOf(op, this.#layout);
    const asked: Submission & Asked = {
      ...op,
      id,
      version,
      rates,
      kind: op.prompt ? 'prompt' : 'flow',
      controlPoint: op.policy === 'p0' ? 'prompt' : 'other',
      labels: {},
      queue,
      refusing: op.refuses ? ((queue.split('/')[3] ?? '').match(/p\d\.[^,]+/g) ?? []) : [],
      pool: op.prompt ? 'gpu' : undefined,
      owner: op.owned ? `g${op.gateway}` : undefined,
      queueLimits: { controlPoint: op.lengthLimit, workload: op.workloadLimit },
      body: op.prompt ? 'x'.repeat(op.bytes) : '',
    };
    return this.#submitAgain(asked, op.gateway, this.#lane.nowMs);
  }

  #submitAgain(asked: Submission & Asked, gateway: number, madeAtMs: number): Call {
    const { id } = asked;
    return {
      actual: this.#gateway(gateway).submit(asked).then(submitted),
      expected: () => {
        const result = this.#model.submit(asked, madeAtMs);
        if (result.status === 'accepted') this.#asked.set(id, asked);
        return result;
      },
    };
  }

  #repeat(pick: number): Promise<boolean> {
    const id = this.#pick(pick, 'any');
    const asked = id === undefined ? undefined : this.#asked.get(id);
    if (!asked) return Promise.resolve(false);
    const madeAtMs = Number.parseInt(asked.id.split('-')[1] ?? '', 36);
    return this.#all([this.#submitAgain(asked, pick % 2, madeAtMs)]);
  }

  /** The same token may come twice: a repeat. Old attempts come, too. */
  #begin({ id, attempt }: Attempt, { gateway, pick }: BeginOp): Call {
    const holder = { id, attempt, token: `token-${pick % 3}` };
    const begun = this.#gateway(gateway).begin(holder, 'w0');
    return {
      actual: begun.then((result) => {
        if (result.status !== 'run') return result;
        const { status, replica, end_by, cancelled, body } = result;
        expect(body).toBe(this.#asked.get(id)?.body);
        return { status, replica: replica.id, end_by, cancelled: cancelled !== undefined };
      }),
      expected: () => this.#model.begin(holder),
    };
  }

  #end(id: string, op: FinishOp): Call {
    const isFlow = this.#asked.get(id)?.kind === 'flow';
    const holder = this.#model.holderOf(id);
    const isMine = op.pick % 9 !== 0;
    const outcome = {
      outcome: isFlow && op.outcome === 'retry' ? ('done' as const) : op.outcome,
      tokens: op.tokens,
      code: op.unavailable ? 'unavailable' : 'upstream_failed',
      replicaDownMs: op.replicaDownMs,
      isSure: op.isSure,
    };
    const claimed = isFlow || isMine ? holder : { ...holder, token: 'nobody' };
    const finished = this.#gateway(op.gateway).finish(isFlow ? { id } : claimed, outcome);
    return { actual: finished, expected: () => this.#model.finish(claimed, outcome) };
  }

  #cancel(id: string, gateway: number): Call {
    const cancelled = this.#gateway(gateway).cancel(id, 'test');
    return { actual: cancelled, expected: () => this.#model.cancel(id) };
  }

  #renew(pick: number): Promise<boolean> {
    const ids = [this.#pick(pick, 'held'), this.#pick(pick + 1, 'held')];
    const holders = ids.flatMap((id) => (id === undefined ? [] : [this.#model.holderOf(id)]));
    if (holders.length === 0) return Promise.resolve(false);
    const renewed = this.#gateway(pick).renew(holders);
    return this.#all([
      {
        actual: renewed.then(({ items }) => items.map(({ status }) => status)),
        expected: () => holders.map((holder) => this.#model.renew(holder)),
      },
    ]);
  }

  /** Two in one turn, with and without a heartbeat. */
  #keep(pick: number): Promise<boolean> {
    const keepers = [pick, pick + 1].flatMap((which) => {
      const id = this.#pick(which, 'any');
      const isFlow = id !== undefined && this.#asked.get(id)?.kind === 'flow';
      return isFlow ? [{ id, heartbeat: which % 3 === 0 }] : [];
    });
    return this.#all(
      keepers.map(({ id, heartbeat }) => ({
        actual: this.#gateway(pick).keepFlow({ id, heartbeat }),
        expected: () => this.#model.keepFlow(id, heartbeat),
      })),
    );
  }

  async #acknowledge(pick: number): Promise<boolean> {
    const job = recent(this.#dispatched, pick);
    if (!job) return false;
    await this.#gateway(pick).acknowledge([{ ...job, pool: 'gpu' }]);
    this.#model.acknowledge(job.id, job.attempt);
    return true;
  }

  async #pass({ ms, sweeps, alive }: Extract<Op, { do: 'pass' }>): Promise<boolean> {
    this.#lane.nowMs += ms;
    this.#model.nowMs = this.#lane.nowMs;
    if (alive) await this.#sweep('g0', 'g1', ...this.#slots.keys());
    if (sweeps) await this.#all([this.#sweepOf(undefined, false)]);
    return alive || sweeps;
  }

  #sweep(...ids: readonly string[]): Promise<boolean> {
    return this.#all(ids.map((id) => this.#sweepOf(id, false)));
  }

  #leave(id: string): Promise<boolean> {
    const call = this.#sweepOf(id, true);
    this.#slots.delete(id);
    return this.#all([call]);
  }

  #sweepOf(id: string | undefined, leaves: boolean): Call {
    const pools = { gpu: this.#slots.get(id ?? '') ?? 0 };
    const kind = id?.startsWith('g') ? 'gateway' : 'worker';
    const member =
      id === undefined ? undefined : ({ id, kind, ...(kind === 'worker' && { pools }) } as const);
    return {
      actual: this.#gateway(0)
        .sweep(member, leaves)
        .then(({ joined }) => joined),
      expected: () => this.#model.sweep(member, leaves),
    };
  }

  async #replicas(takes: readonly number[]): Promise<boolean> {
    const gpu: ReplicaGiven[] = takes.map((max_inflight, index) => ({
      ...address,
      id: `r${index}`,
      max_inflight,
    }));
    await this.#gateway(1).configure({ replicas: { gpu } });
    const named = Object.fromEntries(gpu.map((one) => [one.id, one.max_inflight]));
    this.#model.changeReplicas((pool) => pool.set(named, this.#lane.nowMs));
    return true;
  }

  /** Somebody changes one replica over HTTP. */
  async #replica({ id, change }: Extract<Op, { do: 'replica' }>): Promise<boolean> {
    const { replicas } = this.#gateway(1);
    const { nowMs } = this.#lane;
    if (change.to === 'put') {
      const { maxInflight, state, ttlMs } = change.put;
      const more = { max_inflight: maxInflight, state, ttl_ms: ttlMs };
      await replicas.put('gpu', { ...address, id, ...more });
      this.#model.changeReplicas((pool) => pool.put(id, change.put, nowMs));
      return true;
    }
    const [actual, expected] =
      change.to === 'remove'
        ? [await replicas.remove(id), this.#model.changeReplicas((pool) => pool.remove(id))]
        : [
            await replicas.drain(id, change.deadlineMs),
            this.#model.changeReplicas((pool) =>
              pool.drain(id, nowMs + (change.deadlineMs ?? Number.POSITIVE_INFINITY)),
            ),
          ];
    same(actual, expected ? 'done' : 'unknown', `${change.to} ${id}`);
    return true;
  }

  async #setLimit(key: string, limit: Limit | undefined): Promise<boolean> {
    if (isDeepStrictEqual(this.#limits.get(key), limit)) return false;
    if (limit === undefined) this.#limits.delete(key);
    else this.#limits.set(key, limit);
    return this.#configure(new Map([[key, limit]]), false);
  }

  async #configure(
    changed: ReadonlyMap<string, Limit | undefined>,
    restructured: boolean,
  ): Promise<boolean> {
    const structure = JSON.stringify(this.#layout);
    const names = ['p0', 'p1', 'q', 'qu', 'r', 'ru'];
    const policies = names.map((name): PolicyRecord => {
      const own = [...this.#limits].filter(([key]) => key.split('.')[0] === name);
      const limits = Object.fromEntries(own);
      const version = JSON.stringify([structure, limits]);
      return { name, version, structure, source: 'test', document: {}, limits };
    });
    const result = await this.#gateway(0).configure({ policies });
    // Nothing is new: cjson writes an empty list as {}.
    if (Object.keys(result.applied).length === 0) return false;
    this.#model.configure(changed, restructured, this.#buckets);
    const { version, rekeying } = result;
    const expected = { version: this.#model.version, rekeying: this.#model.rekeying !== undefined };
    same({ version, rekeying }, expected, 'configured');
    return true;
  }

  /** As src/gateway/rekeyer.ts does it, a few at a time; others may begin again, or come late. */
  async #rekey({ items, takeOver, late }: Extract<Op, { do: 'rekey' }>): Promise<boolean> {
    const { rekeying } = this.#model;
    if (late) return this.#keyAnew(this.#model.version - 1, [], true);
    if (rekeying === undefined) return false;
    if (this.#unkeyed?.version !== rekeying || takeOver) {
      this.#unkeyed = { version: rekeying, ids: this.#model.liveIds() };
    }
    const ids = this.#unkeyed.ids.splice(0, items);
    const moved = ids.flatMap((id) => {
      const asked = this.#asked.get(id);
      const queue = asked && queueOf(asked, this.#layout);
      return queue === undefined ? [] : [{ id, queue }];
    });
    if (moved.length > 0) return this.#keyAnew(rekeying, moved, false);
    return this.#keyAnew(rekeying, [], this.#unkeyed.ids.length === 0);
  }

  #keyAnew(version: number, items: { id: string; queue: string }[], done: boolean) {
    const rekeyed = this.#gateway(0).rekey(version, items, done);
    return this.#all([
      {
        actual: rekeyed.then(({ status }) => ({ status })),
        expected: () => this.#model.rekey(version, items, done),
      },
    ]);
  }

  #gateway(which: number) {
    return this.#lane.gateways[which % 2 === 0 ? 0 : 1];
  }

  /** Mostly one that is there; sometimes one that has ended. */
  #pick(pick: number, which: 'held' | 'any'): string | undefined {
    if (pick % 13 === 0) return recent([...this.#asked.keys()], pick);
    const live = this.#model.liveIds();
    const fit = which === 'any' ? live : live.filter((id) => this.#model.stateOf(id) !== 'waiting');
    return fit[pick % Math.max(1, fit.length)];
  }

  /** What others were told, what is held, what is in the buckets, and the invariants. */
  async #compare(op: unknown): Promise<void> {
    const about = typeof op === 'string' ? op : JSON.stringify(op);
    let { snapshot, told, due } = await this.#lane.observe();
    for (let more = 0; snapshot.due.length > 0 && this.#model.rekeying === undefined; more++) {
      if (more > 50) throw new Error(`no end of admissions after ${about}`);
      // A bounded step left some. The next one goes on, whatever it does itself.
      await this.#gateway(0).cancel('nobody', 'test');
      const next = await this.#lane.observe();
      ({ snapshot, due } = next);
      told = joined(told, next.told);
    }
    const expected = this.#model.takeTold();
    same(told, expected, `told after ${about}`);
    for (const line of told.dispatch) {
      const [id = '', attempt] = line.split(' ');
      this.#dispatched.push({ id, attempt: Number(attempt) });
    }
    this.#compareSnapshot(snapshot, about);
    checkSnapshot(snapshot);
    if ((due ?? Number.POSITIVE_INFINITY) > this.#model.dueAt()) {
      same(due, this.#model.dueAt(), `due after ${about}`);
    }
  }

  #compareSnapshot({ hashes }: Snapshot, about: string): void {
    const keysOf = (name: string) => Object.keys(hashes.get(name) ?? {}).toSorted();
    const inState = (isWaiting: boolean) =>
      this.#model
        .liveIds()
        .filter((id) => (this.#model.stateOf(id) === 'waiting') === isWaiting)
        .toSorted();
    same(keysOf('held'), inState(false), `held after ${about}`);
    same(keysOf('requests'), inState(true), `waiting after ${about}`);

    const stored = Object.entries(hashes.get('buckets') ?? {});
    this.#buckets = new Map(stored.map(([name, text]) => [name, parseBucket(text)]));
    const { nowMs } = this.#lane;
    for (const [name, level] of this.#model.levels()) {
      const rule = this.#limits.get(name.split('=')[0] ?? name);
      if (typeof rule !== 'object') continue;
      const actual = new ModelBucket(rule, nowMs);
      actual.change(rule, this.#buckets.get(name), nowMs);
      same(actual.levelAt(nowMs), level, `tokens of ${name} after ${about}`);
    }
  }
}

function submitted(result: object): object {
  const { estimated_start_ms: _, ...rest } = result as Record<string, unknown>;
  // Exact for buckets, an estimate otherwise.
  if (!/^ru?\b/.test(String(rest.limiter))) delete rest.retry_after_ms;
  if (rest.reason === 'queue_full') delete rest.limiter;
  return rest;
}

function joined(first: Told, then: Told): Told {
  const owners = new Set([...Object.keys(first.events), ...Object.keys(then.events)]);
  const events = [...owners].map((owner) => [
    owner,
    [...(first.events[owner] ?? []), ...(then.events[owner] ?? [])],
  ]);
  return {
    events: Object.fromEntries(events),
    dispatch: [...first.dispatch, ...then.dispatch],
  };
}

/** One of the last few. */
function recent<Item>(list: readonly Item[], pick: number): Item | undefined {
  return list[list.length - 1 - (pick % Math.max(1, Math.min(list.length, 12)))];
}
