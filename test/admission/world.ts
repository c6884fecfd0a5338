/** A domain of its own on the test Redis, with a clock that only the test moves. */

import type { Redis } from 'ioredis';
import { expect, onTestFinished } from 'vitest';
import {
  Admission,
  type AdmissionSettings,
  type Dispatch,
  type Holder,
  makeId,
  type RequestRecord,
  type SubmitResult,
} from '../../src/admission/index.ts';
import { domainKey } from '../../src/admission/keys.ts';
import type { Patch } from '../../src/admission/scripts.ts';
import { policyRecord } from '../../src/gateway/policy-book.ts';
import { rekey } from '../../src/gateway/rekeyer.ts';
import { parsePolicy, schedule } from '../../src/policy/index.ts';
import { testRedis } from '../support/redis.ts';
import { checkInvariants, parseRecord } from './invariants.ts';

export const settings: AdmissionSettings = {
  beginMs: 5_000,
  heartbeatMs: 10_000,
  memberMs: 10_000,
  offerAgainMs: 1_000,
  idAgeMs: 30_000,
  bodyLimit: 10_000,
  waitingLimit: 1_000,
  heldLimit: 100_000,
  maxAttempts: 3,
  keepMs: 60_000,
  keepJobMs: 3_600_000,
  keepDeadMs: 86_400_000,
  deadLetters: 100,
  deadLetterBytes: 100_000,
};

/** Whose pool `auto` stands for. */
const models = { gpu: { pool: 'gpu', controlPoint: 'prompt' } };

/** A policy document on control point `prompt`, with what a test wants of it. */
export function policyDocument(fields: {
  name?: string;
  max?: number | 'auto';
  perLabel?: Record<string, number>;
  inflight?: string;
  controlPoint?: string;
  scheduler?: object;
}): object {
  return {
    blueprint: 'concurrency-scheduling/base',
    policy: {
      policy_name: fields.name ?? 'test',
      components: [],
      concurrency_scheduler: {
        max_concurrency: fields.max ?? 1,
        concurrency_limiter: {
          max_inflight_duration: fields.inflight ?? '60s',
          ...(fields.perLabel && { per_label: fields.perLabel }),
        },
        scheduler: {
          priority_label_key: 'priority',
          tokens_label_key: 'tokens',
          workload_label_key: 'workload',
          fairness_label_key: 'user_id',
          ...fields.scheduler,
        },
        selectors: [{ control_point: fields.controlPoint ?? 'prompt' }],
      },
    },
  };
}

export interface NewRequest {
  id?: string;
  user?: string;
  workload?: string;
  priority?: number;
  cost?: number;
  timeoutMs?: number;
  /** A prompt for this pool; a flow when absent. */
  pool?: string;
  owner?: string;
  body?: string;
  version?: number;
  controlPoint?: string;
  labels?: Record<string, string>;
  refusing?: readonly string[];
  affinity?: string;
}

export class World {
  readonly redis: Redis;
  readonly domain: string;
  readonly admission: Admission;
  readonly dispatched: Dispatch[] = [];
  nowMs = 1_800_000_000_000;
  due: number | undefined;
  version = 0;
  #policies: ReturnType<typeof parsePolicy>[] = [];
  readonly #paused = new Set<string>();

  constructor(
    redis: Redis,
    overrides: Partial<AdmissionSettings>,
    options: { domain?: string; patch?: Patch } = {},
  ) {
    this.redis = redis;
    this.domain = options.domain ?? `t${Math.floor(Math.random() * 1e9)}`;
    this.admission = new Admission({
      redis,
      domain: this.domain,
      settings: { ...settings, ...overrides },
      clock: () => this.nowMs,
      patch: options.patch,
    });
    this.admission.onReply((reply) => {
      this.dispatched.push(...(reply.dispatch ?? []));
      this.due = reply.due;
    });
  }

  async policies(...documents: object[]): Promise<void> {
    this.#policies = documents.map((document) => parsePolicy(document));
    const result = await this.admission.configure({
      policies: documents.map((document) => policyRecord('test', document, models)),
    });
    this.version = result.version;
    if (result.rekeying) await rekey(this.admission, this.#rules(), this.version);
  }

  #rules() {
    return { policies: this.#policies, paused: this.#paused };
  }

  /** Nobody is admitted at this control point, or somebody is again. */
  async pause(controlPoint: string, paused: boolean): Promise<void> {
    if (paused) this.#paused.add(controlPoint);
    else this.#paused.delete(controlPoint);
    const result = await this.admission.pause({ controlPoint }, paused);
    this.version = result.version;
    if (result.rekeying) await rekey(this.admission, this.#rules(), this.version);
  }

  /** Another gateway of the same domain: it has read the same policies. */
  adopt(other: World): void {
    this.#policies = other.#policies;
    this.version = other.version;
  }

  /** A pool with one replica and one worker of so many slots. */
  async pool(pool: string, slots: number): Promise<void> {
    const replica = { id: `${pool}-1`, url: 'http://127.0.0.1:1', protocol: 'ollama' };
    await this.admission.configure({ replicas: { [pool]: [{ ...replica, max_inflight: slots }] } });
    await this.beat(`worker-${pool}`, { [pool]: slots });
  }

  /** A worker's sign of life. */
  async beat(id: string, pools: Record<string, number>): Promise<void> {
    await this.admission.sweep({ id, kind: 'worker', pools });
  }

  newId(): string {
    return makeId(this.domain, this.nowMs);
  }

  /** Submits, and returns the id. */
  async add(request: NewRequest = {}): Promise<string> {
    const id = request.id ?? this.newId();
    const result = await this.submit({ ...request, id });
    expect(result.status).toBe('accepted');
    return id;
  }

  submit(request: NewRequest): Promise<SubmitResult> {
    const labels: Record<string, string> = { ...request.labels };
    if (request.user !== undefined) labels.user_id = request.user;
    if (request.workload !== undefined) labels.workload = request.workload;
    if (request.priority !== undefined) labels.priority = String(request.priority);
    const controlPoint = request.controlPoint ?? 'prompt';
    const plan = schedule(this.#policies, {
      controlPoint,
      labels,
      tokensEstimate: request.cost ?? 100,
      pool: request.pool,
      isPaused: this.#paused.has(controlPoint),
    });
    return this.admission.submit({
      id: request.id ?? this.newId(),
      kind: request.pool === undefined ? 'flow' : 'prompt',
      controlPoint,
      labels,
      queue: plan.queue,
      cost: plan.cost,
      version: request.version ?? this.version,
      pool: request.pool,
      owner: request.owner,
      timeoutMs: request.timeoutMs ?? 600_000,
      maxInflightMs: plan.maxInflightMs ?? 60_000,
      rates: plan.rates,
      queueLimits: plan.queueLimits,
      refusing: request.refusing,
      body: request.body,
      affinity: request.affinity,
    });
  }

  async state(id: string): Promise<string> {
    const { request, ended } = await this.admission.inspectRequest(id);
    return request?.state ?? ended?.state ?? 'unknown';
  }

  async record(id: string): Promise<RequestRecord> {
    const { request } = await this.admission.inspectRequest(id);
    if (!request) throw new Error(`${id} is not live`);
    return request;
  }

  /** Requests that hold slots, by the time of their admission, then their age. */
  async admitted(): Promise<string[]> {
    const records = await this.redis.hgetall(domainKey(this.domain, 'held'));
    const held = Object.entries(records).map(([id, text]) => {
      const { admittedAt, sequence } = parseRecord(text);
      return { id, admittedAt, sequence };
    });
    held.sort((a, b) => a.admittedAt - b.admittedAt || a.sequence - b.sequence);
    return held.map(({ id }) => id);
  }

  end(id: string, tokens?: number) {
    return this.admission.finish({ id }, { outcome: 'done', tokens });
  }

  holder(id: string, attempt = 1, token = 'token'): Holder {
    return { id, attempt, token };
  }

  /** Time passes, and somebody sweeps every second, as in life. */
  async pass(ms: number): Promise<void> {
    let leftMs = ms;
    do {
      const stepMs = Math.min(leftMs, 1_000);
      this.nowMs += stepMs;
      leftMs -= stepMs;
      await this.admission.sweep();
    } while (leftMs > 0);
  }

  /**
   * Ends whatever holds a slot, one at a time, until nothing waits. Returns the names given to the
   * requests in the order of their admission, those already admitted first.
   */
  async drain(names: Map<string, string>, limit = 10_000): Promise<string[]> {
    const order: string[] = [];
    const seen = new Set<string>();
    for (let steps = 0; steps < limit; steps++) {
      const holders = await this.admitted();
      for (const id of holders) {
        if (seen.has(id)) continue;
        seen.add(id);
        order.push(names.get(id) ?? id);
      }
      const [first] = holders;
      if (first === undefined) return order;
      await this.end(first);
    }
    return order;
  }

  check(): Promise<void> {
    return checkInvariants(this.redis, this.domain);
  }
}

export async function newWorld(overrides: Partial<AdmissionSettings> = {}): Promise<World> {
  const server = await testRedis();
  onTestFinished(() => server.stop());
  return new World(server.connect(), overrides);
}
