import type { Redis } from 'ioredis';
import { SluiceError } from '../errors.ts';
import { Batch } from './batch.ts';
import { Cache } from './cache.ts';
import { DeadLetters } from './dead-letters.ts';
import { domainKey, idempotencyKey, keySchema, keysOfStep, streamKey } from './keys.ts';
import { Replicas, type RunStep } from './replicas.ts';
import { loadScript, type Patch, runScript, type Script, type Step, steps } from './scripts.ts';
import { plain, word } from './text.ts';
import type {
  AdmissionSettings,
  BeginResult,
  CancelResult,
  Claim,
  ConfigureResult,
  Dispatch,
  FinishResult,
  FlowKeeper,
  Holder,
  Member,
  Outcome,
  PolicyRecord,
  RekeyResult,
  RemoveResult,
  Renewed,
  RenewResult,
  ReplicaGiven,
  StepReply,
  Submission,
  SubmitResult,
  SweepResult,
} from './types.ts';
import type {
  DomainView,
  EndedRecord,
  LiveRequest,
  Place,
  PoliciesView,
  RequestRecord,
  RequestView,
} from './views.ts';
import {
  policyText,
  readableDomain,
  readableEnd,
  readablePolicies,
  readableRequest,
  type Stored,
  type StoredDomain,
  type StoredPolicies,
  settingsText,
  submitItem,
} from './wire.ts';

export interface AdmissionOptions {
  readonly redis: Redis;
  readonly domain: string;
  readonly settings: AdmissionSettings;
  /** Tests only: a clock in place of the server's, in ms. */
  readonly clock?: (() => number) | undefined;
  /** Tests only: broken on purpose, to show that a test notices. */
  readonly patch?: Patch | undefined;
}

/** Requests of one call: it then takes a few ms at most. */
const batchItems = 24;
/** The same while somebody waits: arrivals queue, and an end admits another, which takes longer. */
const batchWhileWaiting = { arrivals: 12, ends: 4 };

/** Ids that one `inspect` looks up, and places that it counts: keeps a script call short. */
const inspectedAtOnce = 500;
const placesAtOnce = 50;

/** They say neither whether somebody waits nor what is due. */
const bystanders: ReadonlySet<Step> = new Set(['inspect', 'claim', 'cache']);

/**
 * One typed function for each atomic step of a domain. Every step may admit others; whoever runs it
 * has to hand `dispatch` of the reply to BullMQ and to acknowledge it, see {@link onReply}.
 */
export class Admission {
  readonly domain: string;
  readonly replicas: Replicas;
  readonly deadLetters: DeadLetters;
  readonly cache: Cache;
  readonly #redis: Redis;
  readonly #settings: AdmissionSettings;
  readonly #clock: (() => number) | undefined;
  readonly #keys: readonly string[];
  readonly #settingsText: string;
  readonly #scripts: ReadonlyMap<Step, Script>;
  readonly #listeners: ((reply: StepReply) => void)[] = [];
  readonly #submits: Batch<Submitting, SubmitResult>;
  readonly #begins: Batch<Holder & { readonly worker: string }, BeginResult>;
  readonly #finishes: Batch<Finishing, FinishResult>;
  readonly #keeps: Batch<FlowKeeper, Renewed>;
  readonly #cancels: Batch<{ readonly id: string; readonly message: string }, CancelResult>;
  #clockOffsetMs = 0;
  #someWait = false;

  constructor(options: AdmissionOptions) {
    this.domain = options.domain;
    this.#redis = options.redis;
    this.#settings = options.settings;
    this.#settingsText = settingsText(options.settings);
    this.#clock = options.clock;
    this.#keys = keysOfStep(options.domain);
    this.#scripts = new Map(steps.map((step) => [step, loadScript(step, options.patch)]));
    const run: RunStep = (step, args, bytes, keys) => this.#step(step, args, bytes, keys);
    this.cache = new Cache(run, options.redis, options.domain, () => this.now());
    this.replicas = new Replicas(run);
    this.deadLetters = new DeadLetters(run);
    const bytesOf = ({ body }: Submitting) => body.length;
    const arrivals = () => (this.#someWait ? batchWhileWaiting.arrivals : batchItems);
    const ends = () => (this.#someWait ? batchWhileWaiting.ends : batchItems);
    this.#submits = new Batch((list) => this.#submit(list), { items: arrivals, bytesOf });
    this.#begins = new Batch((list) => this.#begin(list), { items: arrivals });
    const answerBytes = ({ outcome: { answer } }: Finishing) => answer?.text.length ?? 0;
    this.#finishes = new Batch((list) => this.#finish(list), {
      items: ends,
      bytesOf: answerBytes,
    });
    this.#keeps = new Batch((list) => this.#renew(list), { items: arrivals });
    this.#cancels = new Batch((list) => this.#step('cancel', { items: list }), { items: ends });
  }

  /** Called with each step's reply: hand on what it dispatches, wake up when it is due. */
  onReply(listener: (reply: StepReply) => void): void {
    this.#listeners.push(listener);
  }

  /** Redis' time as far as the last reply tells, ms. */
  now(): number {
    return this.#clock?.() ?? Date.now() + this.#clockOffsetMs;
  }

  /** A request arrives. Safe to repeat with the same id. */
  async submit(submission: Submission): Promise<SubmitResult> {
    return this.#submits.add({ item: submitItem(submission), body: submission.body ?? '' });
  }

  /** A worker starts an attempt: of several deliveries exactly one gets the prompt. */
  begin(holder: Holder, worker: string): Promise<BeginResult> {
    return this.#begins.add({ ...holder, worker });
  }

  /** The heartbeat of everything that a worker runs. */
  async renew(holders: readonly Holder[]): Promise<RenewResult> {
    return { items: holders.length === 0 ? [] : await this.#renew(holders) };
  }

  /** A flow's caller knows that it was admitted, or is still at it. */
  keepFlow(keeper: FlowKeeper): Promise<Renewed> {
    return this.#keeps.add(keeper);
  }

  /** A holder is done: of a prompt with its attempt and token, of a flow with its id alone. */
  finish(holder: Holder | { readonly id: string }, outcome: Outcome): Promise<FinishResult> {
    return this.#finishes.add({ holder, outcome });
  }

  cancel(id: string, message: string): Promise<CancelResult> {
    return this.#cancels.add({ id, message: plain(message) });
  }

  /** Whatever is due, and the caller's sign of life. `leave`: the member is going away. */
  async sweep(member?: Member, leave = false): Promise<SweepResult> {
    const args = { member, leave, alive_ms: this.#settings.memberMs };
    const result = await this.#step<SweepResult>('sweep', args);
    return { ...result, probes: Array.isArray(result.probes) ? result.probes : [] };
  }

  /** New policies, or the replicas of pools. Leases stay. @throws as {@link checkSchema} */
  async configure(change: {
    readonly policies?: readonly PolicyRecord[];
    readonly replicas?: Readonly<Record<string, readonly ReplicaGiven[]>>;
  }): Promise<ConfigureResult> {
    return this.#configure({ ...change, policies: change.policies?.map(policyText) });
  }

  /** Nobody is admitted there any more, or again; who runs goes on. @throws as {@link checkSchema} */
  pause(
    where: { readonly pool: string } | { readonly controlPoint: string },
    paused: boolean,
  ): Promise<ConfigureResult> {
    const place = 'pool' in where ? where : { control_point: word(where.controlPoint) };
    return this.#configure({ pause: { ...place, paused } });
  }

  /**
   * Takes a policy away. Refused as 'in_use' while requests wait or run in its order, unless by
   * `force`, and as 'stale_version' when the policies are not those of `version` any more.
   */
  async removePolicy(name: string, version: number, force = false): Promise<RemoveResult> {
    const args = { remove: name, node: word(name), force, at_version: version, schema: keySchema };
    const result = await this.#step<RemoveResult | Unreadable>('configure', args);
    if (result.status === 'unreadable') throw unreadable(result.schema);
    return result;
  }

  /** Puts live requests into the queues that the policies of `version` give them. */
  rekey(
    version: number,
    items: readonly { readonly id: string; readonly queue: string }[],
    done = false,
  ): Promise<RekeyResult> {
    return this.#step('rekey', { version, items, done });
  }

  /** Some of the live requests: those that wait ('requests') or hold slots. `cursor` '0' begins and ends. */
  async inspectPage(
    hash: 'requests' | 'held',
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; requests: readonly LiveRequest[] }> {
    type Page = { cursor: string; requests: Stored<LiveRequest>[] | Record<string, never> };
    const page = await this.#step<Page>('inspect', { what: 'page', hash, cursor, count });
    const list = Array.isArray(page.requests) ? page.requests : [];
    return { cursor: page.cursor, requests: list.map(readableRequest) };
  }

  /** @throws SluiceError when the domain's keys were written by a version that this one cannot read. */
  async checkSchema(): Promise<void> {
    const { schema } = await this.inspectPolicies();
    if (schema !== undefined && schema !== keySchema) throw unreadable(schema);
  }

  async inspectRequest(id: string): Promise<RequestView> {
    const view = await this.#step<StoredView>('inspect', { what: 'request', id });
    const { request, ended, ...rest } = view;
    return {
      ...rest,
      ...(request && { request: readableRequest(request) }),
      ...(ended && { ended: readableEnd(ended) }),
    };
  }

  /** Which of these have not ended, or only which `waiting`; at most {@link inspectedAtOnce} in one step. */
  async inspectLive(ids: readonly string[], waiting = false): Promise<Set<string>> {
    const live = new Set<string>();
    for (let from = 0; from < ids.length; from += inspectedAtOnce) {
      const some = ids.slice(from, from + inspectedAtOnce);
      const result = await this.#step<{ ids: string[] | Record<string, never> }>('inspect', {
        what: 'live',
        ids: some,
        waiting,
      });
      if (Array.isArray(result.ids)) for (const id of result.ids) live.add(id);
    }
    return live;
  }

  /** The request that an Idempotency-Key stands for: `id`, when nobody was first. */
  claim(key: string, claim: Claim): Promise<{ id: string; content: string }> {
    const { keepMs, ...rest } = claim;
    return this.#step(
      'claim',
      { ...rest, keep_ms: keepMs },
      [],
      [idempotencyKey(this.domain, key)],
    );
  }

  /** Where these wait; who does not wait is left out. */
  async inspectPlaces(ids: readonly string[]): Promise<Place[]> {
    const places: Place[] = [];
    for (let from = 0; from < ids.length; from += placesAtOnce) {
      const some = ids.slice(from, from + placesAtOnce);
      type Told = { places: Place[] | Record<string, never> };
      const told = await this.#step<Told>('inspect', { what: 'places', ids: some });
      if (Array.isArray(told.places)) places.push(...told.places);
    }
    return places;
  }

  async inspectPolicies(): Promise<PoliciesView> {
    return readablePolicies(await this.#step<StoredPolicies>('inspect', { what: 'policies' }));
  }

  /** `controlPoints`: those whose lengths are asked for. */
  async inspectDomain(controlPoints: readonly string[] = []): Promise<DomainView> {
    const args = { what: 'domain', control_points: controlPoints.map(word) };
    return readableDomain(await this.#step<StoredDomain>('inspect', args));
  }

  /** BullMQ has these attempts: they need not be offered again. */
  async acknowledge(items: readonly Dispatch[]): Promise<void> {
    if (items.length === 0) return;
    const members = items.map((item) => `${item.id} ${item.attempt}`);
    await this.#redis.zrem(domainKey(this.domain, 'outbox'), ...members);
  }

  async #configure(change: object): Promise<ConfigureResult> {
    const args = { ...change, schema: keySchema };
    const result = await this.#step<ConfigureResult | Unreadable>('configure', args);
    if (result.status === 'unreadable') throw unreadable(result.schema);
    // cjson writes an empty list as {}.
    return { ...result, applied: Array.isArray(result.applied) ? result.applied : [] };
  }

  #submit(list: readonly Submitting[]): Promise<SubmitResult[]> {
    const { idAgeMs, bodyLimit, waitingLimit, heldLimit } = this.#settings;
    const args = {
      id_age_ms: idAgeMs,
      body_limit: bodyLimit,
      waiting_limit: waitingLimit,
      held_limit: heldLimit,
      items: list.map(({ item }) => item),
    };
    const bodies = list.map(({ body }) => body);
    return this.#step('submit', args, bodies);
  }

  #begin(items: readonly (Holder & { readonly worker: string })[]): Promise<BeginResult[]> {
    return this.#step('begin', { items, heartbeat_ms: this.#settings.heartbeatMs });
  }

  #renew(items: readonly (Holder | FlowKeeper)[]): Promise<Renewed[]> {
    return this.#step('renew', { items, heartbeat_ms: this.#settings.heartbeatMs });
  }

  #finish(list: readonly Finishing[]): Promise<FinishResult[]> {
    const answers: string[] = [];
    const streams: string[] = [];
    const items = list.map(({ holder, outcome }) => {
      const { replicaDownMs, isSure, answer, message, ...rest } = outcome;
      if (answer !== undefined) {
        answers.push(answer.text);
        streams.push(streamKey(this.domain, holder.id));
      }
      return {
        ...holder,
        ...rest,
        message: message && plain(message),
        replica_down_ms: replicaDownMs,
        is_sure: isSure,
        answer: answer === undefined ? undefined : answers.length,
        at: answer?.at,
      };
    });
    return this.#step('finish', { items }, answers, streams);
  }

  async #step<Result>(
    step: Step,
    args: object,
    bytes: readonly string[] = [],
    moreKeys: readonly string[] = [],
  ): Promise<Result> {
    const clock = this.#clock === undefined ? '' : String(this.#clock());
    const text = await runScript(
      this.#redis,
      step,
      this.#scripts,
      [...this.#keys, ...moreKeys],
      [clock, this.#settingsText, JSON.stringify(args), ...bytes],
    );
    const reply = JSON.parse(text) as StepReply & { readonly result: Result };
    this.#clockOffsetMs = reply.now - Date.now();
    if (!bystanders.has(step)) this.#someWait = reply.waiting ?? false;
    for (const listener of this.#listeners) listener(reply);
    return reply.result;
  }
}

interface Submitting {
  readonly item: readonly (string | number)[];
  readonly body: string;
}

interface Finishing {
  readonly holder: Holder | { readonly id: string };
  readonly outcome: Outcome;
}

type StoredView = Omit<RequestView, 'request' | 'ended'> & {
  readonly request?: Stored<RequestRecord>;
  readonly ended?: Stored<EndedRecord>;
};

type Unreadable = { readonly status: 'unreadable'; readonly schema: string };

function unreadable(schema: string): SluiceError {
  const message = `the keys in Redis are of schema ${schema}, this version reads ${keySchema}`;
  return new SluiceError('unavailable', message);
}
