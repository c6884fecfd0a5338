import type { Redis } from 'ioredis';
import { type Admission, makeId, type SubmitResult, streamKey } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { type LabelMissing, labelMissing, type PromptEnded, promptEnded } from '../diagnostics.ts';
import { type ErrorCode, errorTable, SluiceError } from '../errors.ts';
import { schedule } from '../policy/index.ts';
import type { Upstream } from '../pool/index.ts';
import { type Answer, readAnswer } from '../stream/index.ts';
import type { LargestCosts } from './fairness.ts';
import { knownControlPoints, type PolicyBook } from './policy-book.ts';
import { rejection } from './rejections.ts';
import { keptLabels } from './rekeyer.ts';
import type { End, Waiters } from './waiters.ts';

/** A prompt as a client sent it, whatever the protocol. */
export interface Prompt {
  readonly model: string;
  /** Where it is scheduled; the model's when absent. */
  readonly controlPoint?: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly priority?: number | undefined;
  readonly boundLabels?: readonly string[] | undefined;
  readonly timeoutMs?: number | undefined;
  readonly tokensEstimate: number;
  readonly upstream: Upstream;
}

export interface Submitted {
  readonly id: string;
  readonly controlPoint: string;
  /** The longest it may take from now to its end, in the queue and in flight, ms. */
  readonly longestMs: number;
  /** HTTP status of its policy for one that waited too long. */
  readonly deniedStatus: number | undefined;
  readonly result: Extract<SubmitResult, { status: 'accepted' | 'known' }>;
}

/** What a waiting client gets. */
export interface Reply {
  readonly id: string;
  readonly answer: Answer;
  readonly queuedMs: number;
}

/** Past its longest time a request has ended; if Redis does not say so for this long, it is away, ms. */
const silenceMs = 30_000;
/** How often a schedule is computed anew because the policies changed meanwhile. */
const scheduleTries = 5;

/** Takes prompts in: labels -> policy -> admission, and for those who wait, back to the answer. */
export class Prompts {
  readonly #config: Config;
  readonly #admission: Admission;
  readonly #redis: Redis;
  readonly #book: PolicyBook;
  readonly #waiters: Waiters;
  readonly #costs: LargestCosts;
  readonly #gatewayId: string;

  constructor(parts: {
    readonly config: Config;
    readonly admission: Admission;
    readonly redis: Redis;
    readonly book: PolicyBook;
    readonly waiters: Waiters;
    readonly costs: LargestCosts;
    readonly gatewayId: string;
  }) {
    this.#config = parts.config;
    this.#admission = parts.admission;
    this.#redis = parts.redis;
    this.#book = parts.book;
    this.#waiters = parts.waiters;
    this.#costs = parts.costs;
    this.#gatewayId = parts.gatewayId;
  }

  /** A prompt that goes on without its client, to be fetched later. */
  async submitJob(prompt: Prompt): Promise<Submitted> {
    return this.#submit(prompt, makeId(this.#config.domain, this.#admission.now()), undefined);
  }

  /**
   * A prompt whose client waits here. Aborting `gone` cancels it.
   * @throws SluiceError with the code under which it ended, or `unavailable` without Redis.
   */
  async run(prompt: Prompt, gone: AbortSignal): Promise<Reply> {
    const id = makeId(this.#config.domain, this.#admission.now());
    const ended = this.#waiters.wait(id);
    const startedAtMs = Date.now();
    const from = performance.now();
    let outcome = 'internal';
    let controlPoint = 'other';
    const cancel = () => this.cancel(id, 'its client went away').catch(() => undefined);
    try {
      const submitted = await this.#submit(prompt, id, this.#gatewayId);
      controlPoint = submitted.controlPoint;
      this.#waiters.accepted(id, submitted.longestMs + silenceMs);
      if (gone.aborted) void cancel();
      gone.addEventListener('abort', () => void cancel(), { once: true });
      const end = await ended;
      const answer = await this.#answerOf(id, end, submitted.deniedStatus);
      outcome = 'done';
      return { id, answer, queuedMs: end.queuedMs ?? 0 };
    } catch (error) {
      if (error instanceof SluiceError) outcome = error.code;
      // Redis did not answer: it may have taken the request in, and nobody waits for it any more.
      if (!(error instanceof SluiceError)) void cancel();
      throw withId(error, id);
    } finally {
      this.#waiters.forget(id);
      if (promptEnded.hasSubscribers) {
        const totalMs = performance.now() - from;
        promptEnded.publish({
          id,
          controlPoint: this.#isKnown(controlPoint) ? controlPoint : 'other',
          outcome,
          startedAtMs,
          totalMs,
        } satisfies PromptEnded);
      }
    }
  }

  /** Callers may name any control point; metrics must not grow with what they name. */
  #isKnown(controlPoint: string): boolean {
    return knownControlPoints(this.#book, this.#config).includes(controlPoint);
  }

  /** What a request that is over answered, as it is kept. */
  readAnswer(id: string): Promise<Answer | undefined> {
    return readAnswer(this.#redis, streamKey(this.#config.domain, id));
  }

  cancel(id: string, message: string): Promise<unknown> {
    return this.#admission.cancel(id, message);
  }

  async #answerOf(id: string, end: End, deniedStatus?: number): Promise<Answer> {
    if (end.state === 'done') {
      const answer = await this.readAnswer(id);
      if (answer) return answer;
      throw new SluiceError('internal', 'the answer is no longer kept');
    }
    throw endError(end, deniedStatus);
  }

  async #submit(prompt: Prompt, id: string, owner: string | undefined): Promise<Submitted> {
    const { limits, timeouts, models } = this.#config;
    // To Ollama a name without a tag means `latest`.
    const untagged = prompt.model.replace(/:latest$/, '');
    const known = [prompt.model, untagged].find((name) => Object.hasOwn(models, name));
    const model = known === undefined ? undefined : models[known];
    if (!model) {
      const names = Object.keys(models).join(', ');
      throw new SluiceError(
        'unknown_model',
        `model ${prompt.model} is not served; known: ${names}`,
        {
          param: 'model',
        },
      );
    }
    const controlPoint = prompt.controlPoint ?? model.controlPoint;
    for (let tries = 0; tries < scheduleTries; tries++) {
      const { version, policies } = this.#book;
      const plan = schedule(policies, {
        controlPoint,
        labels: prompt.labels,
        tokensEstimate: prompt.tokensEstimate,
        pool: model.pool,
        headerPriority: prompt.priority,
        boundLabels: prompt.boundLabels,
        timeoutMs: prompt.timeoutMs,
      });
      if (plan.cost > limits.tokens) {
        const message = `a request of ${plan.cost} tokens is over the limit of ${limits.tokens}`;
        throw new SluiceError('invalid_request', message, { param: 'tokens' });
      }
      const timeoutMs = plan.queueTimeoutMs ?? timeouts.queueMs;
      const maxInflightMs = plan.maxInflightMs ?? timeouts.maxInflightMs;
      const result = await this.#admission.submit({
        id,
        kind: 'prompt',
        controlPoint,
        labels: keptLabels(prompt),
        queue: plan.queue,
        cost: plan.cost,
        version,
        pool: model.pool,
        owner,
        timeoutMs,
        maxInflightMs,
        job: owner === undefined,
        rates: plan.rates,
        queueLimits: plan.queueLimits,
        body: JSON.stringify(prompt.upstream),
      });
      if (result.status === 'rejected') {
        throw rejection(result, { config: this.#config, controlPoint, plan });
      }
      if (result.status !== 'stale_version') {
        this.#costs.saw(plan.queue, plan.cost);
        for (const label of plan.defaulted) {
          labelMissing.publish({ policy: plan.policy, label } satisfies LabelMissing);
        }
        const { deniedStatus } = plan;
        return { id, controlPoint, longestMs: timeoutMs + maxInflightMs, deniedStatus, result };
      }
      await this.#book.follow(result.version);
    }
    throw new SluiceError('unavailable', 'the policies keep changing; try again', {
      retryAfterMs: 1_000,
    });
  }
}

/** The error a client sees for a request that ended otherwise than done. */
export function endError(
  end: Pick<End, 'state' | 'code' | 'message'>,
  deniedStatus?: number,
): SluiceError {
  const code =
    end.code !== undefined && end.code in errorTable ? (end.code as ErrorCode) : 'internal';
  return new SluiceError(code, end.message ?? `the request ended as ${end.state}`, {
    retryAfterMs: code === 'queue_timeout' || code === 'unavailable' ? 1_000 : undefined,
    httpStatus: code === 'queue_timeout' ? deniedStatus : undefined,
  });
}

const idOfError = new WeakMap<object, string>();

function withId(error: unknown, id: string): unknown {
  if (typeof error === 'object' && error !== null) idOfError.set(error, id);
  return error;
}

/** The request that an error belongs to, for the answer's header and the log. */
export function requestIdOf(error: unknown): string | undefined {
  return typeof error === 'object' && error !== null ? idOfError.get(error) : undefined;
}
