/**
 * The engine, as plainly as it can be said: every rule of docs/design.md by brute force over all
 * requests, with no gate, no index and no timer. It shares nothing with the Lua. The order is in
 * model/shares.ts, token buckets in model/bucket.ts.
 */

import type {
  Bucket,
  Holder,
  Member,
  Outcome,
  RequestState,
  Submission,
} from '../../src/admission/index.ts';
import { parseQueueKey } from '../../src/policy/index.ts';
import { ModelBucket, type StoredBucket } from './model/bucket.ts';
import { ModelPool } from './model/pool.ts';
import { type Place, type Sharer, Shares } from './model/shares.ts';
import type { settings as worldSettings } from './world.ts';

/** Slots or tokens. */
export type Limit = number | Bucket;

type LiveState = 'waiting' | 'admitted' | 'running';

class ModelRequest implements Sharer {
  readonly asked: Submission;
  readonly sequence: number;
  readonly deadline: number;
  place: Place;
  /** 'nowhere' while it changes places. */
  state: LiveState | 'nowhere' = 'nowhere';
  owner: string | undefined;
  /** When a prompt that nobody begins waits again. */
  beginBy = 0;
  endBy = 0;
  leaseUntil = Number.POSITIVE_INFINITY;
  attempt = 0;
  failures = 0;
  startedAt = 0;
  /** Replicas where it failed, the last few. */
  readonly failedOn: string[] = [];
  began = false;
  /** For another replica than those where it failed. */
  hasWaited = false;
  token: string | undefined;
  replica: string | undefined;
  cancelled = false;
  /** When the attempt is offered to BullMQ again; undefined once it is known to be there. */
  offerAt: number | undefined;

  constructor(asked: Submission, sequence: number, nowMs: number) {
    this.asked = asked;
    this.sequence = sequence;
    this.deadline = nowMs + asked.timeoutMs;
    this.place = placeOf(asked.queue);
    this.owner = asked.owner;
  }

  get id(): string {
    return this.asked.id;
  }

  get cost(): number {
    return this.asked.cost;
  }

  get isWaiting(): boolean {
    return this.state === 'waiting';
  }

  get dueAt(): number {
    if (this.state === 'waiting') return this.deadline;
    if (this.state === 'running') return Math.min(this.leaseUntil, this.endBy);
    return this.asked.kind === 'flow' ? Math.min(this.leaseUntil, this.endBy) : this.beginBy;
  }
}

/** What a step told others. */
export interface Told {
  /** By owner, in order: `id state`. */
  readonly events: Record<string, string[]>;
  /** Handed to BullMQ, in order: `id attempt`. */
  readonly dispatch: string[];
}

type Result = Readonly<Record<string, unknown>>;

export class Model {
  nowMs = 0;
  version = 0;
  rekeying: number | undefined;
  /** By limit key; a limiter without one is unlimited, a pool without one closed. */
  readonly limits = new Map<string, Limit>();
  readonly #settings: typeof worldSettings;
  readonly #requests = new Map<string, ModelRequest>();
  readonly #shares = new Shares(() => this.#live());
  readonly #buckets = new Map<string, ModelBucket>();
  readonly #ended = new Map<string, { readonly state: RequestState; readonly atMs: number }>();
  readonly #members = new Map<string, { readonly member: Member; aliveUntil: number }>();
  /** The one pool that prompts are for. */
  readonly pool = new ModelPool((id) => this.#at(id).map((request) => request.id));
  /** Those that only replicas have room for where they failed, until a prompt leaves one. */
  readonly #deferred: ModelRequest[] = [];
  #sequence = 0;
  #sweptAt: number | undefined;
  #graceUntil = 0;
  #told: Told = { events: {}, dispatch: [] };

  constructor(settings: typeof worldSettings) {
    this.#settings = settings;
  }

  /** What the steps since the last call told others. */
  takeTold(): Told {
    const told = this.#told;
    this.#told = { events: {}, dispatch: [] };
    return told;
  }

  /** When something is due next, at the latest. */
  dueAt(): number {
    const holds = [...this.#buckets.values()].flatMap(({ hold }) => (hold ? [hold.untilMs] : []));
    const offers = [...this.#live()].flatMap(({ offerAt }) => offerAt ?? []);
    const alive = [...this.#members.values()].map(({ aliveUntil }) => aliveUntil);
    const requests = [...this.#live()].map(({ dueAt }) => dueAt);
    const replicas = this.pool.timers().map(({ atMs }) => atMs);
    return Math.min(...holds, ...offers, ...alive, ...requests, ...replicas);
  }

  /** Tokens times interval of every bucket. */
  levels(): Map<string, number> {
    const isBucket = (name: string) => typeof this.#limitOf(name) === 'object';
    const buckets = [...this.#buckets].filter(([name]) => isBucket(name));
    return new Map(buckets.map(([name, bucket]) => [name, bucket.levelAt(this.nowMs)]));
  }

  stateOf(id: string): RequestState | undefined {
    const live = this.#requests.get(id)?.state;
    return live === 'nowhere' ? undefined : (live ?? this.#ended.get(id)?.state);
  }

  /** Ids of all live requests, oldest first. */
  liveIds(): string[] {
    return [...this.#live()].map(({ id }) => id);
  }

  /** Who may finish it: of a prompt the attempt and the token that began it. */
  holderOf(id: string): Holder {
    const { attempt = 0, token = 'none' } = this.#requests.get(id) ?? {};
    return { id, attempt, token };
  }

  submit(asked: Submission, madeAtMs: number): Result {
    const known = this.#requests.get(asked.id)?.state ?? this.#remembered(asked.id);
    if (known) return { status: 'known', state: known };
    if (madeAtMs < this.nowMs - this.#settings.idAgeMs) return rejected('stale_id');
    if (asked.version !== this.version) return { status: 'stale_version', version: this.version };
    if (asked.timeoutMs <= 0) return rejected('queue_timeout');
    if (this.#isFull(asked)) return rejected('queue_full');
    const refusal = this.#refusal(asked);
    if (refusal) return refusal;

    this.#sequence += 1;
    const request = new ModelRequest(asked, this.#sequence, this.nowMs);
    this.#drawRates(request, 1);
    this.#shares.join(request.place);
    this.#wait(request);
    this.#admit(request);
    if (!request.isWaiting) return { status: 'accepted', state: 'admitted' };
    const { queue, paths } = request.place;
    const ahead = this.#countWaiting(({ place }) => place.paths[0] === paths[0]) - 1;
    const position = this.#countWaiting(({ place }) => place.queue === queue);
    return { status: 'accepted', state: 'waiting', position, ahead };
  }

  begin({ id, attempt, token }: Holder): Result {
    const request = this.#requests.get(id);
    if (!request) return { status: 'stale', state: this.#remembered(id) ?? 'unknown' };
    const mine = request.state === 'running' && request.token === token;
    if (request.attempt !== attempt || !(request.state === 'admitted' || mine)) {
      return { status: 'stale', state: request.state };
    }
    if (request.state === 'admitted') {
      const replica = this.pool.choose(request.failedOn, request.hasWaited);
      if (replica === 'later') {
        if (!this.#deferred.includes(request)) {
          this.#deferred.push(request);
          request.beginBy = Math.min(this.nowMs + this.#settings.beginMs, request.endBy);
        }
        request.offerAt = undefined;
        return { status: 'stale', state: 'admitted' };
      }
      if (replica === undefined) {
        if (this.rekeying !== undefined) return { status: 'stale', state: 'admitted' };
        this.#putBack(request);
        this.#admit();
        return { status: 'put_back' };
      }
      this.#undefer(request);
      Object.assign(request, { state: 'running', began: true, replica, token, offerAt: undefined });
      request.leaseUntil = this.nowMs + this.#settings.heartbeatMs;
      request.startedAt = this.nowMs;
      this.pool.enter(replica, request.id);
      this.#tell(request, 'running');
    }
    const { replica, cancelled, endBy } = request;
    if (replica === undefined || !this.pool.has(replica)) {
      this.#retry(request, 'unavailable');
      this.#admit();
      return { status: 'stale', state: 'admitted' };
    }
    return { status: 'run', replica, end_by: endBy, cancelled };
  }

  /** A flow's gateway has done its part; with heartbeats it needs more of them. */
  keepFlow(id: string, heartbeat: boolean): Result {
    const request = this.#requests.get(id);
    const isFlow = request?.asked.kind === 'flow';
    if (!isFlow || !this.#holds(request, 0, '')) return { id, status: 'lost' };
    request.owner = undefined;
    if (heartbeat) request.leaseUntil = this.nowMs + this.#settings.heartbeatMs;
    const slots = request.place.limiters.some((name) => !this.#bucket(name));
    return { id, status: 'kept', lease_ms: request.dueAt - this.nowMs, slots };
  }

  renew({ id, attempt, token }: Holder): 'kept' | 'abort' | 'lost' {
    const request = this.#requests.get(id);
    if (request?.state !== 'running' || !this.#holds(request, attempt, token)) return 'lost';
    request.leaseUntil = this.nowMs + this.#settings.heartbeatMs;
    return request.cancelled ? 'abort' : 'kept';
  }

  finish(holder: Holder, outcome: Outcome): Result {
    const request = this.#requests.get(holder.id);
    if (!request) {
      const state = this.#remembered(holder.id);
      return state ? { status: 'already', state } : { status: 'stale' };
    }
    if (!this.#holds(request, holder.attempt, holder.token)) {
      return { status: 'stale', state: request.state };
    }
    const { replica, startedAt } = request;
    // What fails everywhere says nothing of where it fails.
    const isEvidence = request.failures === 0 || outcome.isSure === true;
    const failed = () => {
      const { replicaDownMs: ms, isSure = false } = outcome;
      if (replica === undefined || ms === undefined || !isEvidence) return;
      this.pool.failed(replica, startedAt, { ms, isSure }, this.nowMs);
    };
    if (outcome.outcome !== 'retry') {
      if (replica !== undefined && outcome.outcome === 'done') this.pool.served(replica, startedAt);
      this.#end(request, outcome.outcome, outcome.tokens);
      failed();
      this.#admit();
      return { status: 'ended', state: outcome.outcome };
    }
    const failedThere = outcome.replicaDownMs !== undefined || outcome.code !== 'unavailable';
    this.#retry(request, outcome.code, failedThere);
    failed();
    this.#admit();
    const ended = !this.#requests.has(holder.id);
    return { status: ended ? 'ended' : 'retried', state: this.stateOf(holder.id) };
  }

  cancel(id: string): Result {
    const request = this.#requests.get(id);
    if (!request) {
      const state = this.#remembered(id);
      return state ? { status: 'already', state } : { status: 'unknown' };
    }
    const status = this.#cancel(request);
    this.#admit();
    return { status };
  }

  /** BullMQ has this attempt. */
  acknowledge(id: string, attempt: number): void {
    const request = this.#requests.get(id);
    if (request?.attempt === attempt) request.offerAt = undefined;
  }

  /** A sign of life, or a farewell, and whatever is due, in the order of time. Says who is new. */
  sweep(member?: Member, leaves = false): boolean {
    const { memberMs, offerAgainMs } = this.#settings;
    const joins = member !== undefined && !leaves && !this.#members.has(member.id);
    if (this.nowMs - (this.#sweptAt ?? this.nowMs) > memberMs / 2) {
      this.#graceUntil = this.nowMs + memberMs;
    }
    this.#sweptAt = this.nowMs;
    if (member) {
      const aliveUntil = this.nowMs + (leaves ? 0 : memberMs);
      this.#members.set(member.id, { member, aliveUntil });
    }
    this.#countCapacity();

    for (const { name, atMs, run } of this.#timers().toSorted(byTimeAndName)) {
      // What came before may have changed it.
      const still = this.#timers().find((timer) => timer.name === name);
      if (still && atMs <= this.nowMs && still.atMs <= this.nowMs) run(leaves ? member?.id : '');
    }
    for (const request of [...this.#live()].toSorted(byOffer)) {
      if (request.offerAt === undefined || request.offerAt > this.nowMs) continue;
      request.offerAt = this.nowMs + offerAgainMs;
      this.#told.dispatch.push(`${request.id} ${request.attempt}`);
    }
    this.#admit();
    return joins;
  }

  /**
   * Other limits, undefined for none; what each bucket has is as Redis last wrote it. With
   * `restructured` nobody is admitted until all live requests are keyed anew.
   */
  configure(
    limits: ReadonlyMap<string, Limit | undefined>,
    restructured: boolean,
    stored: ReadonlyMap<string, StoredBucket>,
  ): void {
    this.version += 1;
    for (const [key, limit] of limits) this.#setLimit(key, limit, stored);
    const isLive = this.#requests.size > 0;
    if (this.rekeying !== undefined || (restructured && isLive)) this.rekeying = this.version;
    this.#admit();
  }

  /** Replicas are put, drain or go: `change` says whether anything is new. */
  changeReplicas(change: (pool: ModelPool) => boolean): boolean {
    const isNew = change(this.pool);
    if (isNew) this.#offerDeferred();
    this.#admit();
    return isNew;
  }

  rekey(version: number, items: readonly { id: string; queue: string }[], done: boolean): Result {
    if (this.rekeying !== version) {
      const status = this.rekeying === undefined ? 'rekeyed' : 'stale_version';
      return { status };
    }
    for (const { id, queue } of items) {
      const request = this.#requests.get(id);
      if (request && request.place.queue !== queue) this.#move(request, placeOf(queue));
    }
    if (done) this.rekeying = undefined;
    this.#admit();
    return { status: 'rekeyed' };
  }

  #live(): ModelRequest[] {
    return [...this.#requests.values()].filter(({ state }) => state !== 'nowhere');
  }

  #remembered(id: string): RequestState | undefined {
    const ended = this.#ended.get(id);
    return ended && ended.atMs + this.#settings.keepMs > this.nowMs ? ended.state : undefined;
  }

  #countWaiting(which: (request: ModelRequest) => boolean): number {
    return this.#live().filter((one) => one.isWaiting && which(one)).length;
  }

  #isFull({ controlPoint, queue, cost, queueLimits = {}, body = '' }: Submission): boolean {
    const { bodyLimit, waitingLimit, heldLimit } = this.#settings;
    const { paths } = placeOf(queue);
    const over = (limit: number | undefined, length: number) => {
      if (limit === undefined || length < limit) return false;
      // Where nobody may wait, one that can go at once is welcome.
      return limit > 0 || !this.#mayPass(queue, cost);
    };
    const bytes = this.#live().reduce((sum, { asked }) => sum + (asked.body ?? '').length, 0);
    return (
      this.#countWaiting(() => true) >= waitingLimit ||
      this.#live().filter(({ isWaiting }) => !isWaiting).length >= heldLimit ||
      (body.length > 0 && bytes + body.length > bodyLimit) ||
      over(
        queueLimits.controlPoint,
        this.#countWaiting(({ asked }) => asked.controlPoint === controlPoint),
      ) ||
      over(
        queueLimits.workload,
        this.#countWaiting(({ place }) => place.paths[1] === paths[1]),
      )
    );
  }

  /** Whether one that arrives is admitted at once. */
  #mayPass(queue: string, cost: number): boolean {
    const isFirst = this.#countWaiting(({ place }) => place.queue === queue) === 0;
    const canTake = (name: string) => {
      const bucket = this.#bucket(name);
      return this.#isOpen(name) && (!bucket || bucket.msUntil(cost, this.nowMs) === 0);
    };
    return this.rekeying === undefined && isFirst && placeOf(queue).limiters.every(canTake);
  }

  /** Some limits let nobody wait. Rate limits pay now or never; a quota must be able to pay some day. */
  #refusal({ queue, cost, rates = [], refusing = [] }: Submission): Result | undefined {
    const full = refusing.find((name) => !this.#isOpen(name));
    if (full !== undefined) return rejected('rate_limited', { limiter: full });
    let latest: Result | undefined;
    let latestMs = 0;
    for (const { limiter, tokens } of rates) {
      const bucket = this.#bucket(limiter);
      const ms = bucket ? bucket.msUntil(tokens, this.nowMs) : 0;
      if (ms === undefined) return rejected('over_capacity', { limiter });
      if (ms > latestMs) latest = rejected('rate_limited', { limiter, retry_after_ms: ms });
      latestMs = Math.max(ms, latestMs);
    }
    if (latest) return latest;
    const limiter = placeOf(queue).limiters.find((name) => {
      const bucket = this.#bucket(name);
      return bucket && cost > bucket.capacity;
    });
    return limiter === undefined ? undefined : rejected('over_capacity', { limiter });
  }

  #drawRates(request: ModelRequest, sign: 1 | -1): void {
    for (const { limiter, tokens } of request.asked.rates ?? []) {
      this.#bucket(limiter)?.draw(sign * tokens, this.nowMs);
    }
  }

  /** Admits whoever may go, until nobody may. `arriving` is told by its own submit. */
  #admit(arriving?: ModelRequest): void {
    this.#countCapacity();
    while (this.rekeying === undefined) {
      const eligible = this.#eligible();
      const first = this.#shares.choose(eligible) as ModelRequest | undefined;
      if (!first) break;
      const short = first.place.limiters
        .map((name) => this.#bucket(name))
        .find((bucket) => bucket && bucket.msUntil(first.cost, this.nowMs) !== 0);
      if (!short) this.#take(first, eligible, first === arriving);
      else if (first.cost > short.capacity) this.#end(first, 'rejected');
      // The tokens that come are for the first in line.
      else short.holdFor(first.id, first.cost, this.nowMs);
    }
    if (this.#requests.size === 0) this.#shares.reset();
  }

  #take(request: ModelRequest, eligible: readonly ModelRequest[], silent: boolean): void {
    request.state = 'admitted';
    this.#shares.charge(request, eligible);
    this.#draw(request.place.limiters, request.cost);
    request.endBy = this.nowMs + request.asked.maxInflightMs;
    if (request.asked.pool !== undefined) this.#offer(request);
    if (!silent) this.#tell(request, 'admitted');
    // Its caller hears of it in the answer to its submit.
    else if (request.asked.pool === undefined) request.owner = undefined;
  }

  /** Heads of queues whose limiters all have a free unit. */
  #eligible(): ModelRequest[] {
    const heads = new Map<string, ModelRequest>();
    for (const one of this.#live()) {
      const { queue } = one.place;
      if (one.isWaiting && !heads.has(queue)) heads.set(queue, one);
    }
    const isOpen = new Map<string, boolean>();
    const memo = (name: string) => {
      const known = isOpen.get(name) ?? this.#isOpen(name);
      isOpen.set(name, known);
      return known;
    };
    return [...heads.values()].filter(({ place }) => place.limiters.every(memo));
  }

  /** A free slot; a quota that is not held for somebody. */
  #isOpen(name: string): boolean {
    const bucket = this.#bucket(name);
    if (bucket) return bucket.hold === undefined;
    const missing = name.startsWith('pool:') ? 0 : Number.POSITIVE_INFINITY;
    const limit = this.#limitOf(name) ?? missing;
    const holds = (one: ModelRequest) => !one.isWaiting && one.place.limiters.includes(name);
    return this.#live().filter(holds).length < Number(limit);
  }

  #limitOf(name: string): Limit | undefined {
    return this.limits.get(name.split('=')[0] ?? name);
  }

  /** A limiter's bucket, full at first; undefined for one that counts slots, or nothing. */
  #bucket(name: string): ModelBucket | undefined {
    const limit = this.#limitOf(name);
    if (typeof limit !== 'object') return undefined;
    const bucket = this.#buckets.get(name) ?? new ModelBucket(limit, this.nowMs);
    this.#buckets.set(name, bucket);
    return bucket;
  }

  #setLimit(key: string, limit: Limit | undefined, stored: ReadonlyMap<string, StoredBucket>) {
    if (limit === undefined) this.limits.delete(key);
    else this.limits.set(key, limit);
    for (const [name, bucket] of this.#buckets) {
      if ((name.split('=')[0] ?? name) !== key) continue;
      if (typeof limit === 'object') bucket.change(limit, stored.get(name), this.nowMs);
      else bucket.letGo();
    }
  }

  /** Takes from quotas; a negative number gives back, and who is first is asked again. */
  #draw(names: readonly string[], tokens: number): void {
    for (const name of names) {
      const bucket = this.#bucket(name);
      if (tokens !== 0) bucket?.draw(tokens, this.nowMs);
      if (tokens < 0) bucket?.letGo();
    }
  }

  /** At its place in its queue, by its age. */
  #wait(request: ModelRequest): void {
    request.state = 'waiting';
    this.#requests.set(request.id, request);
  }

  /** No more among those who wait; a quota that was held for it is not. */
  #leaveQueue(request: ModelRequest): void {
    request.state = 'nowhere';
    this.#shares.left(request.place);
    for (const name of request.place.limiters) {
      const bucket = this.#bucket(name);
      if (bucket?.hold?.id === request.id) bucket.letGo();
    }
  }

  #end(request: ModelRequest, state: RequestState, tokens?: number): void {
    const { id, cost, place, asked } = request;
    if (request.isWaiting) {
      this.#leaveQueue(request);
      // Who was never admitted has used nothing.
      this.#drawRates(request, -1);
    } else {
      const stated = Math.min(Math.max(tokens ?? cost, 1), 10_000_000);
      const actual = asked.pool !== undefined && !request.began ? 1 : stated;
      request.state = 'nowhere';
      this.#draw(place.limiters, actual - cost);
      this.#shares.settle(place, cost, actual);
    }
    this.#undefer(request);
    this.#leaveReplica(request);
    this.#requests.delete(id);
    this.#ended.set(id, { state, atMs: this.nowMs });
    // A flow is done when its caller says so.
    if (asked.pool !== undefined || state !== 'done') this.#tell(request, state);
  }

  /** Policies put it elsewhere: it keeps its age, its lease and what it was charged. */
  #move(request: ModelRequest, place: Place): void {
    const { state, place: before } = request;
    if (state === 'waiting') {
      this.#leaveQueue(request);
      request.place = place;
      this.#shares.join(place);
      this.#wait(request);
      return;
    }
    request.state = 'nowhere';
    // What it holds of quotas moves as its slots do.
    const onlyOf = (one: Place, other: Place) =>
      one.limiters.filter((name) => !other.limiters.includes(name));
    this.#draw(onlyOf(before, place), -request.cost);
    this.#draw(onlyOf(place, before), request.cost);
    this.#shares.left(before);
    this.#shares.beforeJoin(place);
    Object.assign(request, { place, state });
  }

  #offer(request: ModelRequest): void {
    const { beginMs, offerAgainMs } = this.#settings;
    request.attempt += 1;
    request.offerAt = this.nowMs + offerAgainMs;
    request.beginBy = Math.min(this.nowMs + beginMs, request.endBy);
    this.#told.dispatch.push(`${request.id} ${request.attempt}`);
  }

  /** No worker began it: it waits again, at its old place. */
  #putBack(request: ModelRequest): void {
    if (request.deadline <= this.nowMs) {
      this.#end(request, 'rejected');
      return;
    }
    request.offerAt = undefined;
    this.#undefer(request);
    this.#draw(request.place.limiters, -request.cost);
    this.#shares.giveBack(request.place, request.cost);
    this.#wait(request);
  }

  #retry(request: ModelRequest, code: string | undefined, failedThere = false): void {
    const { replica } = request;
    if (code !== 'unavailable') request.failures += 1;
    // The last few are remembered, whatever they say.
    if (request.failedOn.push(failedThere ? (replica ?? '') : '') > 16) request.failedOn.shift();
    if (request.cancelled) this.#end(request, 'cancelled');
    else if (request.failures >= this.#settings.maxAttempts) this.#end(request, 'failed');
    else {
      this.#leaveReplica(request);
      Object.assign(request, { state: 'admitted', token: undefined, hasWaited: false });
      this.#offer(request);
    }
  }

  #cancel(request: ModelRequest): 'cancelled' | 'cancelling' {
    if (request.state === 'running') {
      request.cancelled = true;
      return 'cancelling';
    }
    this.#end(request, 'cancelled');
    return 'cancelled';
  }

  #holds(request: ModelRequest, attempt: number, token: string): boolean {
    const { asked, state, endBy, leaseUntil } = request;
    if (endBy <= this.nowMs) return false;
    if (asked.kind === 'flow') return state === 'admitted';
    if (leaseUntil <= this.nowMs) return false;
    return state === 'running' && request.attempt === attempt && request.token === token;
  }

  #at(replica: string): ModelRequest[] {
    return this.#live().filter((request) => request.replica === replica);
  }

  #leaveReplica(request: ModelRequest): void {
    const { replica } = request;
    request.replica = undefined;
    if (replica === undefined) return;
    this.pool.left(replica, request.id);
    this.#offerDeferred();
  }

  /** Whether it was one of those. */
  #undefer(request: ModelRequest): boolean {
    const at = this.#deferred.indexOf(request);
    if (at >= 0) this.#deferred.splice(at, 1);
    return at >= 0;
  }

  #offerDeferred(): void {
    for (const request of this.#deferred.splice(0)) this.#offer(request);
  }

  /** The pool takes the smaller of what its workers and its replicas take. */
  #countCapacity(): void {
    const slots = [...this.#members.values()].map(({ member }) => member.pools?.gpu ?? 0);
    const workers = slots.reduce((sum, of) => sum + of, 0);
    this.limits.set('pool:gpu', Math.min(workers, this.pool.units()));
  }

  /** What is due when, under the names that order it at one time. */
  #timers(): Timer[] {
    const requests = this.#live().map((request) => ({
      name: request.id,
      atMs: request.dueAt,
      run: () => this.#onTime(request),
    }));
    const members = [...this.#members].map(([id, { aliveUntil }]) => ({
      name: `member ${id}`,
      atMs: aliveUntil,
      run: (leaving: string | undefined) => this.#onSilence(id, leaving === id),
    }));
    const replicas = this.pool.timers().map(({ id, atMs }) => ({
      name: `replica ${id}`,
      atMs,
      run: () => this.#onReplicaTime(id),
    }));
    const holds = [...this.#buckets].flatMap(([limiter, bucket]) =>
      bucket.hold
        ? [{ name: `bucket ${limiter}`, atMs: bucket.hold.untilMs, run: () => bucket.letGo() }]
        : [],
    );
    return [...requests, ...members, ...replicas, ...holds];
  }

  #onTime(request: ModelRequest): void {
    const { state } = request;
    const isFlow = request.asked.kind === 'flow';
    const isOffered = state === 'admitted' && !isFlow;
    if (state === 'waiting') this.#end(request, 'rejected');
    else if (request.endBy <= this.nowMs) this.#end(request, 'expired');
    else if (isOffered && this.rekeying === undefined) this.#onNobodyBegan(request);
    else if (isOffered) request.beginBy = this.nowMs + this.#settings.beginMs;
    else if (this.nowMs < this.#graceUntil) request.leaseUntil = this.#graceUntil;
    else if (isFlow) this.#end(request, 'expired');
    else this.#retry(request, 'upstream_failed');
  }

  #onNobodyBegan(request: ModelRequest): void {
    if (!this.#undefer(request)) {
      this.#putBack(request);
      return;
    }
    request.hasWaited = true;
    this.#offer(request);
  }

  /** A gateway's requests end with it; a worker's capacity is gone. */
  #onSilence(id: string, leaves: boolean): void {
    const known = this.#members.get(id);
    if (known && this.nowMs < this.#graceUntil && !leaves) {
      known.aliveUntil = this.#graceUntil;
      return;
    }
    const owned = this.#live().filter(({ owner }) => owner === id);
    for (const request of owned.toSorted((a, b) => Number(b.isWaiting) - Number(a.isWaiting))) {
      request.owner = undefined;
      this.#cancel(request);
    }
    this.#members.delete(id);
    this.#countCapacity();
  }

  /** What still runs at a replica whose time is over goes to others. */
  #onReplicaTime(id: string): void {
    const { moves, opens } = this.pool.onTime(id, this.nowMs, this.#graceUntil);
    if (opens) this.#offerDeferred();
    if (!moves) return;
    for (const request of this.#at(id)) this.#retry(request, 'unavailable');
  }

  #tell({ owner, id }: ModelRequest, state: RequestState): void {
    if (owner === undefined) return;
    const told = this.#told.events[owner] ?? [];
    this.#told.events[owner] = told;
    told.push(`${id} ${state}`);
  }
}

interface Timer {
  readonly name: string;
  readonly atMs: number;
  readonly run: (leaving: string | undefined) => void;
}

const byTimeAndName = (a: Timer, b: Timer) => a.atMs - b.atMs || (a.name < b.name ? -1 : 1);

const byOffer = (a: ModelRequest, b: ModelRequest) =>
  (a.offerAt ?? 0) - (b.offerAt ?? 0) || (`${a.id} ${a.attempt}` < `${b.id} ${b.attempt}` ? -1 : 1);

function rejected(reason: string, more: Result = {}): Result {
  return { status: 'rejected', reason, ...more };
}

const places = new Map<string, Place>();

function placeOf(queue: string): Place {
  const known = places.get(queue);
  if (known) return known;
  const name = parseQueueKey(queue);
  if (!name) throw new Error(`not a queue: ${queue}`);
  const [policy = '', workload = '', key = ''] = queue.split('/');
  const place: Place = {
    queue,
    limiters: name.limiters,
    paths: [policy, `${policy}/${workload}`, `${policy}/${workload}/${key}`],
    weights: [1, name.priority, 1],
  };
  places.set(queue, place);
  return place;
}
