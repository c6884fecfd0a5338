import type { Admission, DomainView } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { type ClusterSample, clusterSampled } from '../diagnostics.ts';
import { parseLimiter } from '../policy/index.ts';
import { fairnessGaps, type LargestCosts } from './fairness.ts';
import { knownControlPoints, type PolicyBook } from './policy-book.ts';
import { readable } from './views.ts';

/** Looks at the cluster now and then, and says what it sees, as long as somebody listens. */
export class Sampler {
  readonly #parts: SamplerParts;
  #timer: NodeJS.Timeout | undefined;
  #sampling = false;

  constructor(parts: SamplerParts) {
    this.#parts = parts;
  }

  start(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setInterval(() => void this.sample(), this.#parts.everyMs);
    void this.sample();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async sample(): Promise<void> {
    if (!clusterSampled.hasSubscribers || this.#sampling) return;
    this.#sampling = true;
    const { admission, book, config, costs, onError } = this.#parts;
    try {
      // A gateway that gets no requests would not hear of a change.
      await book.refresh();
      const known = knownControlPoints(book, config);
      const view = await admission.inspectDomain(known);
      clusterSampled.publish({
        fairness: fairnessGaps(view.nodes, costs),
        waiting: waitingAt(view, known),
        slots: slotsOf(view),
        alerters: book.policies.flatMap(({ name: policy, alerter }) =>
          alerter === undefined ? [] : [{ policy, ...alerter }],
        ),
      } satisfies ClusterSample);
    } catch (error) {
      onError(error);
    } finally {
      this.#sampling = false;
    }
  }
}

interface SamplerParts {
  readonly admission: Admission;
  readonly book: PolicyBook;
  readonly config: Config;
  readonly costs: LargestCosts;
  /** How often, ms. */
  readonly everyMs: number;
  readonly onError: (error: unknown) => void;
}

/** Callers may name any control point; metrics must not grow with what they name. */
function waitingAt(view: DomainView, known: readonly string[]): ClusterSample['waiting'] {
  const counts = known.map((controlPoint) => ({
    controlPoint,
    waiting: view.lengths.get(controlPoint) ?? 0,
  }));
  const others = counts.reduce((left, { waiting }) => left - waiting, view.waiting);
  return others > 0 ? [...counts, { controlPoint: 'other', waiting: others }] : counts;
}

/** Of policies and pools; limits for the values of a label are as many as there are users. */
function slotsOf(view: DomainView): ClusterSample['slots'] {
  return Object.entries(view.limits)
    .filter(([key]) => ['pool', 'policy'].includes(parseLimiter(key).kind))
    .map(([key, limit]) => ({
      limiter: readable(key),
      inFlight: view.inFlight[key] ?? 0,
      limit,
    }));
}
