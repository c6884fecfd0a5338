import type { Admission, Submission, SubmitResult } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { type LabelMissing, labelMissing } from '../diagnostics.ts';
import { SluiceError } from '../errors.ts';
import { type Schedule, schedule } from '../policy/index.ts';
import { publishDecision } from './decisions.ts';
import type { LargestCosts } from './fairness.ts';
import type { PolicyBook } from './policy-book.ts';
import { rejection } from './rejections.ts';
import { keptLabels } from './rekeyer.ts';

/** What a caller says of a request, prompt or flow, that is to be scheduled. */
export interface Asked {
  readonly id: string;
  readonly controlPoint: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly priority?: number | undefined;
  readonly boundLabels?: readonly string[] | undefined;
  /** Tells its API key from others; '' where there are none. */
  readonly keyId?: string | undefined;
  readonly timeoutMs?: number | undefined;
  readonly tokensEstimate: number;
}

/** The part of a submission that no policy has a say in. */
export type Kind = Pick<Submission, 'kind' | 'pool' | 'owner' | 'job' | 'body' | 'affinity'>;

export interface TakenIn {
  readonly plan: Schedule;
  readonly result: Extract<SubmitResult, { status: 'accepted' | 'known' }>;
  /** The longest that it may wait, ms. */
  readonly timeoutMs: number;
  /** The longest that it may hold its slots, ms. */
  readonly maxInflightMs: number;
}

/** How often a schedule is computed anew because the policies changed meanwhile. */
const scheduleTries = 5;

/** The way in: labels -> policy -> admission, by the policies that the cluster has at that moment. */
export class Intake {
  readonly #parts: IntakeParts;

  constructor(parts: IntakeParts) {
    this.#parts = parts;
  }

  /** @throws SluiceError when it is refused at once, or `unavailable` while the policies keep changing */
  async submit(asked: Asked, kind: Kind): Promise<TakenIn> {
    const { config, admission, book, costs } = this.#parts;
    const { limits, timeouts } = config;
    const { id, controlPoint, labels } = asked;
    for (let tries = 0; tries < scheduleTries; tries++) {
      const { version, policies } = book;
      const plan = schedule(policies, {
        controlPoint,
        isPaused: book.paused.has(controlPoint),
        labels,
        tokensEstimate: asked.tokensEstimate,
        pool: kind.pool,
        headerPriority: asked.priority,
        boundLabels: asked.boundLabels,
        timeoutMs: asked.timeoutMs,
      });
      if (plan.cost > limits.tokens) {
        const message = `a request of ${plan.cost} tokens is over the limit of ${limits.tokens}`;
        throw new SluiceError('invalid_request', message, { param: 'tokens' });
      }
      const timeoutMs = plan.queueTimeoutMs ?? timeouts.queueMs;
      const maxInflightMs = plan.maxInflightMs ?? timeouts.maxInflightMs;
      const result = await admission.submit({
        ...kind,
        id,
        controlPoint,
        labels: keptLabels(asked),
        queue: plan.queue,
        cost: plan.cost,
        version,
        timeoutMs,
        maxInflightMs,
        refusing: plan.refusing,
        rates: plan.rates,
        queueLimits: plan.queueLimits,
      });
      if (result.status === 'rejected') {
        publishDecision(plan, false, result);
        throw rejection(result, { config, controlPoint, plan });
      }
      if (result.status !== 'stale_version') {
        costs.saw(plan.queue, plan.cost);
        for (const label of plan.defaulted) {
          labelMissing.publish({ policy: plan.policy, label } satisfies LabelMissing);
        }
        return { plan, result, timeoutMs, maxInflightMs };
      }
      await book.follow(result.version);
    }
    throw new SluiceError('unavailable', 'the policies keep changing; try again', {
      retryAfterMs: 1_000,
    });
  }
}

interface IntakeParts {
  readonly config: Config;
  readonly admission: Admission;
  readonly book: PolicyBook;
  readonly costs: LargestCosts;
}
