import type { Redis } from 'ioredis';
import { type Admission, makeId, type SubmitResult, streamKey } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { type PromptEnded, promptEnded } from '../diagnostics.ts';
import { SluiceError } from '../errors.ts';
import type { Schedule } from '../policy/index.ts';
import { type ClientPrompt, encodePrompt } from '../protocols/index.ts';
import { type Answer, type Follower, readAnswer } from '../stream/index.ts';
import { affinityOf } from './affinity.ts';
import { publishDecision } from './decisions.ts';
import { type IdempotencyKey, IdempotencyKeys } from './idempotency.ts';
import type { Asked, Intake } from './intake.ts';
import { OpenPrompt } from './open-prompt.ts';
import { boundedControlPoint, type PolicyBook } from './policy-book.ts';
import { staleId } from './rejections.ts';
import { requestIdOf, withId } from './request-ids.ts';
import type { Waiters } from './waiters.ts';

/** A prompt as a client sent it, whatever the protocol. */
export interface Prompt extends Omit<Asked, 'id' | 'controlPoint'> {
  readonly client: ClientPrompt;
  /** Where it is scheduled; the model's when absent. */
  readonly controlPoint?: string | undefined;
}

export interface Submitted {
  readonly id: string;
  readonly controlPoint: string;
  /** The longest it may take from now to its end, in the queue and in flight, ms. */
  readonly longestMs: number;
  /** HTTP status of its policy for one that waited too long. */
  readonly deniedStatus: number | undefined;
  /** The policies that are still to hear whether it is let in. */
  readonly alerting: Schedule['alerting'];
  readonly result: Extract<SubmitResult, { status: 'accepted' | 'known' }>;
}

/** Past its longest time a request has ended; if Redis does not say so for this long, it is away, ms. */
const silenceMs = 30_000;
/** How often a key is claimed again because what it stood for came to nothing meanwhile. */
const keyTries = 10;

/** Takes prompts in: labels -> policy -> admission, and for those who wait, back to the answer. */
export class Prompts {
  readonly #config: Config;
  readonly #admission: Admission;
  readonly #redis: Redis;
  readonly #book: PolicyBook;
  readonly #waiters: Waiters;
  readonly #intake: Intake;
  readonly #gatewayId: string;
  readonly #keys: IdempotencyKeys;

  constructor(parts: {
    readonly config: Config;
    readonly admission: Admission;
    readonly redis: Redis;
    readonly book: PolicyBook;
    readonly waiters: Waiters;
    readonly intake: Intake;
    readonly gatewayId: string;
  }) {
    this.#config = parts.config;
    this.#admission = parts.admission;
    this.#redis = parts.redis;
    this.#book = parts.book;
    this.#waiters = parts.waiters;
    this.#intake = parts.intake;
    this.#gatewayId = parts.gatewayId;
    const { keepJobMs } = parts.config.timeouts;
    this.#keys = new IdempotencyKeys(parts.admission, parts.redis, keepJobMs);
  }

  /** A prompt that goes on without its client, to be fetched later. */
  async submitJob(prompt: Prompt, key?: IdempotencyKey): Promise<Submitted> {
    const { submitted } = await this.#begin(prompt, key, () => undefined, undefined);
    // Nobody here hears what becomes of it: that it was taken in is what counts.
    publishDecision(submitted, true);
    return submitted;
  }

  /**
   * Sends a prompt whose client waits here. With a key it is one that other clients may ask for, too.
   * @throws SluiceError when it is refused at once, or `unavailable` without Redis
   */
  async open(prompt: Prompt, key?: IdempotencyKey): Promise<OpenPrompt> {
    const startedAtMs = Date.now();
    const from = performance.now();
    const ended = (id: string, controlPoint: string, outcome: string, firstTokenAt?: number) => {
      if (!promptEnded.hasSubscribers) return;
      const known = boundedControlPoint(this.#book, this.#config, controlPoint);
      const totalMs = performance.now() - from;
      const firstTokenMs = firstTokenAt === undefined ? undefined : firstTokenAt - from;
      const message = { id, controlPoint: known, outcome, startedAtMs, totalMs, firstTokenMs };
      promptEnded.publish(message satisfies PromptEnded);
    };
    const waiters = this.#waiters;
    const follow = async (id: string) =>
      key ? (await waiters.followShared(id)).follower : waiters.follow(id);
    try {
      const owner = key ? undefined : this.#gatewayId;
      const { submitted, follower } = await this.#begin(prompt, key, follow, owner);
      if (!follower) throw new Error('an open prompt has a follower');
      const { id, controlPoint, longestMs } = submitted;
      waiters.accepted(id, longestMs + silenceMs);
      return new OpenPrompt({
        submitted,
        follower,
        isShared: key !== undefined,
        forget: () => waiters.forget(id, follower),
        cancel: () => this.cancel(id, 'its client went away'),
        onClose: (outcome, firstTokenAt) => ended(id, controlPoint, outcome, firstTokenAt),
      });
    } catch (error) {
      const code = error instanceof SluiceError ? error.code : 'internal';
      ended(requestIdOf(error) ?? '', 'other', code);
      throw error;
    }
  }

  /** What a request that is over answered, as it is kept. */
  readAnswer(id: string): Promise<Answer | undefined> {
    return readAnswer(this.#redis, streamKey(this.#config.domain, id));
  }

  cancel(id: string, message: string): Promise<unknown> {
    return this.#admission.cancel(id, message);
  }

  /** Submits it, under the id that its key stands for. */
  async #begin(
    prompt: Prompt,
    key: IdempotencyKey | undefined,
    follow: (id: string) => Promise<Follower> | Follower | undefined,
    owner: string | undefined,
  ): Promise<{ submitted: Submitted; follower: Follower | undefined }> {
    let failed: string | undefined;
    for (let tries = 0; tries < keyTries; tries++) {
      const fresh = makeId(this.#config.domain, this.#admission.now());
      const id = key ? await this.#keys.claim(key, fresh, failed) : fresh;
      const follower = await follow(id);
      try {
        const submitted = await this.#submit(prompt, id, owner);
        if (!key) return { submitted, follower };
        if (!cameToNothing(submitted.result)) {
          await this.#keys.keep(key, submitted.longestMs);
          if (follower && submitted.result.status === 'known') await this.#catchUp(id, follower);
          return { submitted, follower };
        }
      } catch (error) {
        if (follower) void this.#waiters.forget(id, follower).catch(() => undefined);
        // Redis did not answer: it may have taken the request in, and nobody waits for it any more.
        if (!key && !(error instanceof SluiceError)) {
          void this.cancel(id, 'its gateway lost Redis').catch(() => undefined);
        }
        if (!key || !isStale(error)) throw withId(error, id);
      }
      if (follower) await this.#waiters.forget(id, follower);
      failed = id;
    }
    throw new SluiceError('unavailable', 'the requests of this Idempotency-Key keep failing', {
      retryAfterMs: 1_000,
    });
  }

  /** A repeat hears of the attempt that counts, not of one before it that broke off. */
  async #catchUp(id: string, follower: Follower): Promise<void> {
    const { request } = await this.#admission.inspectRequest(id);
    if (request?.attempt !== undefined) follower.startAt(request.attempt);
  }

  async #submit(prompt: Prompt, id: string, owner: string | undefined): Promise<Submitted> {
    const model = modelOf(prompt.client.model, this.#config);
    const controlPoint = prompt.controlPoint ?? model.controlPoint;
    const { plan, result, timeoutMs, maxInflightMs } = await this.#intake.submit(
      { ...prompt, id, controlPoint },
      {
        kind: 'prompt',
        pool: model.pool,
        owner,
        job: owner === undefined,
        body: encodePrompt(prompt.client),
        affinity: affinityOf(prompt, this.#config.pools[model.pool] ?? {}),
      },
    );
    const longestMs = timeoutMs + maxInflightMs;
    const alerting = result.status === 'accepted' ? plan.alerting : [];
    return { id, controlPoint, longestMs, deniedStatus: plan.deniedStatus, alerting, result };
  }
}

/** Of a repeat: the request that its key stands for has failed, so this is another try. */
function cameToNothing(result: Submitted['result']): boolean {
  const over = ['failed', 'cancelled', 'expired', 'rejected'];
  return result.status === 'known' && over.includes(result.state);
}

/** What its key stands for was never taken in, or is forgotten. */
function isStale(error: unknown): boolean {
  return error instanceof SluiceError && error.cause === staleId;
}

/** @throws SluiceError unknown_model */
export function modelOf(name: string, { models }: Config): Config['models'][string] {
  // To Ollama a name without a tag means `latest`.
  const untagged = name.replace(/:latest$/, '');
  const known = [name, untagged].find((one) => Object.hasOwn(models, one));
  const model = known === undefined ? undefined : models[known];
  if (model) return model;
  const message = `model ${name} is not served; known: ${Object.keys(models).join(', ')}`;
  throw new SluiceError('unknown_model', message, { param: 'model' });
}
