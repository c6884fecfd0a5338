import type { Redis } from 'ioredis';
import { SluiceError } from '../errors.ts';
import { parseId } from './ids.ts';
import { domainKey, keySchema, keysOfStep, streamKey } from './keys.ts';
import { loadScript, runScript, type Script } from './scripts.ts';
import type {
  BeginResult,
  CancelResult,
  ConfigureResult,
  Dispatch,
  DomainView,
  FinishResult,
  Holder,
  Member,
  Outcome,
  PolicyRecord,
  RenewResult,
  ReplicaRecord,
  RequestView,
  Submission,
  SubmitResult,
  SweepResult,
} from './types.ts';

/** Bounds and periods of the engine, in ms unless named otherwise. */
export interface AdmissionSettings {
  /** An admitted prompt that no worker begins within this waits again. */
  readonly beginMs: number;
  /** A worker's lease between two heartbeats. */
  readonly heartbeatMs: number;
  /** A process without a sign of life for this is gone. */
  readonly memberMs: number;
  /** An offer to BullMQ that nobody confirmed is made again after this. */
  readonly offerAgainMs: number;
  /** An id older than this that nobody remembers is not a new request. */
  readonly idAgeMs: number;
  /** Bytes of all bodies in Redis. */
  readonly bodyLimit: number;
  /** Requests that may wait, in the whole domain. */
  readonly waitingLimit: number;
  /** Failed attempts after which a prompt has failed. */
  readonly maxAttempts: number;
}

export interface AdmissionOptions {
  readonly redis: Redis;
  readonly domain: string;
  readonly settings: AdmissionSettings;
  /** Tests only: a clock in place of the server's, in ms. */
  readonly clock?: (() => number) | undefined;
}

/** What every step says beside its result. */
export interface StepReply {
  /** Redis' time, ms. */
  readonly now: number;
  /** When something is due next, ms of Redis' time; absent when nothing is. */
  readonly due?: number;
  readonly dispatch?: readonly Dispatch[];
}

/** Ids that one `inspect` looks up: keeps a script call short. */
const inspectedAtOnce = 500;

const steps = [
  'submit',
  'begin',
  'renew',
  'finish',
  'cancel',
  'sweep',
  'configure',
  'inspect',
] as const;
type Step = (typeof steps)[number];

/**
 * One typed function for each atomic step of a domain. Every step may admit others; whoever runs it
 * has to hand `dispatch` of the reply to BullMQ and to acknowledge it, see {@link onReply}.
 */
export class Admission {
  readonly domain: string;
  readonly #redis: Redis;
  readonly #settings: AdmissionSettings;
  readonly #clock: (() => number) | undefined;
  readonly #keys: readonly string[];
  readonly #scripts: ReadonlyMap<Step, Script>;
  readonly #listeners: ((reply: StepReply) => void)[] = [];
  #clockOffsetMs = 0;

  constructor(options: AdmissionOptions) {
    this.domain = options.domain;
    this.#redis = options.redis;
    this.#settings = options.settings;
    this.#clock = options.clock;
    this.#keys = keysOfStep(options.domain);
    this.#scripts = new Map(steps.map((step) => [step, loadScript(step)]));
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
  submit(submission: Submission): Promise<SubmitResult> {
    const { id, kind, labels, queue, cost, pool, owner, version, body } = submission;
    const timeMs = parseId(id)?.timeMs;
    if (timeMs === undefined) throw new Error(`not a request id: ${id}`);
    const args = {
      id,
      id_time: timeMs,
      id_age_ms: this.#settings.idAgeMs,
      version,
      kind,
      control_point: submission.controlPoint,
      labels,
      queue,
      cost,
      pool,
      owner,
      timeout_ms: submission.timeoutMs,
      max_inflight_ms: submission.maxInflightMs,
      keep_ms: submission.keepMs,
      begin_ms: this.#settings.beginMs,
      max_attempts: this.#settings.maxAttempts,
      body_limit: this.#settings.bodyLimit,
      waiting_limit: this.#settings.waitingLimit,
    };
    return this.#step('submit', args, body === undefined ? [] : [body]);
  }

  /** A worker starts an attempt: of several deliveries exactly one gets the prompt. */
  begin(holder: Holder, worker: string): Promise<BeginResult> {
    return this.#step('begin', { ...holder, worker, heartbeat_ms: this.#settings.heartbeatMs });
  }

  /** The heartbeat of everything that a worker runs. */
  async renew(holders: readonly Holder[]): Promise<RenewResult> {
    if (holders.length === 0) return { items: [] };
    return this.#step('renew', { items: holders, heartbeat_ms: this.#settings.heartbeatMs });
  }

  /** A holder is done: of a prompt with its attempt and token, of a flow with its id alone. */
  finish(holder: Holder | { readonly id: string }, outcome: Outcome): Promise<FinishResult> {
    const { replicaDownMs, answer, ...rest } = outcome;
    return this.#step(
      'finish',
      { ...holder, ...rest, replica_down_ms: replicaDownMs },
      answer === undefined ? [] : [answer],
      [streamKey(this.domain, holder.id)],
    );
  }

  cancel(id: string, message: string): Promise<CancelResult> {
    return this.#step('cancel', { id, message });
  }

  /** Whatever is due, and the caller's sign of life. `leave`: the member is going away. */
  sweep(member?: Member, leave = false): Promise<SweepResult> {
    return this.#step('sweep', { member, leave, alive_ms: this.#settings.memberMs });
  }

  /** New policies, or the replicas of pools. Leases stay. @throws as {@link checkSchema} */
  async configure(change: {
    readonly policies?: readonly PolicyRecord[];
    readonly replicas?: Readonly<Record<string, readonly Omit<ReplicaRecord, 'pool'>[]>>;
  }): Promise<Extract<ConfigureResult, { status: 'configured' }>> {
    const policies = change.policies?.map((policy) => JSON.stringify(policy));
    const args = { ...change, policies, schema: keySchema };
    const result = await this.#step<ConfigureResult>('configure', args);
    if (result.status === 'unreadable') throw unreadable(result.schema);
    return result;
  }

  /** @throws SluiceError when the domain's keys were written by a version that this one cannot read. */
  async checkSchema(): Promise<void> {
    const { schema } = await this.inspectPolicies();
    if (schema !== undefined && schema !== keySchema) throw unreadable(schema);
  }

  inspectRequest(id: string): Promise<RequestView> {
    return this.#step('inspect', { what: 'request', id });
  }

  /** Which of these have not ended; at most {@link inspectedAtOnce} in one step. */
  async inspectLive(ids: readonly string[]): Promise<Set<string>> {
    const live = new Set<string>();
    for (let from = 0; from < ids.length; from += inspectedAtOnce) {
      const some = ids.slice(from, from + inspectedAtOnce);
      const result = await this.#step<{ ids: string[] | Record<string, never> }>('inspect', {
        what: 'live',
        ids: some,
      });
      if (Array.isArray(result.ids)) for (const id of result.ids) live.add(id);
    }
    return live;
  }

  async inspectPolicies(): Promise<{
    version: number;
    schema: string | undefined;
    policies: PolicyRecord[];
  }> {
    const stored = await this.#step<{
      version: number;
      schema?: string;
      policies: string[] | Record<string, never>;
    }>('inspect', { what: 'policies' });
    const list = Array.isArray(stored.policies) ? stored.policies : [];
    return {
      version: stored.version,
      schema: stored.schema,
      policies: list.map((text) => JSON.parse(text) as PolicyRecord),
    };
  }

  async inspectDomain(): Promise<DomainView> {
    type Pairs = readonly (readonly [string, string])[] | Record<string, never>;
    const stored = await this.#step<{
      limits: Pairs;
      in_flight: Pairs;
      nodes: DomainView['nodes'];
      waiting: number;
      live: number;
      body_bytes: number;
      replicas: Pairs;
      members: Pairs;
    }>('inspect', { what: 'domain' });
    // cjson writes an empty list as {}.
    const list = (pairs: Pairs) => (Array.isArray(pairs) ? pairs : []) as [string, string][];
    const numbers = (pairs: Pairs) =>
      Object.fromEntries(list(pairs).map(([name, value]) => [name, Number(value)]));
    return {
      limits: numbers(stored.limits),
      inFlight: numbers(stored.in_flight),
      nodes: stored.nodes,
      waiting: stored.waiting,
      live: stored.live,
      bodyBytes: stored.body_bytes,
      replicas: list(stored.replicas).map(([id, text]) => ({ ...JSON.parse(text), id })),
      members: list(stored.members).map(([id, text]) => ({ ...JSON.parse(text), id })),
    };
  }

  /** BullMQ has these attempts: they need not be offered again. */
  async acknowledge(items: readonly Dispatch[]): Promise<void> {
    if (items.length === 0) return;
    const members = items.map((item) => `${item.id} ${item.attempt}`);
    await this.#redis.zrem(domainKey(this.domain, 'outbox'), ...members);
  }

  async #step<Result>(
    step: Step,
    args: object,
    bytes: readonly string[] = [],
    moreKeys: readonly string[] = [],
  ): Promise<Result> {
    const script = this.#scripts.get(step);
    if (!script) throw new Error(`no step ${step}`);
    const clock = this.#clock === undefined ? '' : String(this.#clock());
    const json = JSON.stringify({ ...args, offer_again_ms: this.#settings.offerAgainMs });
    const text = await runScript(
      this.#redis,
      script,
      [...this.#keys, ...moreKeys],
      [clock, json, ...bytes],
    );
    const reply = JSON.parse(text) as StepReply & { readonly result: Result };
    this.#clockOffsetMs = reply.now - Date.now();
    for (const listener of this.#listeners) listener(reply);
    return reply.result;
  }
}

function unreadable(schema: string): SluiceError {
  const message = `the keys in Redis are of schema ${schema}, this version reads ${keySchema}`;
  return new SluiceError('unavailable', message);
}
