import type { Attributes, Meter } from '@opentelemetry/api';
import type { ClusterSample, PolicyAlerter, RequestDecided } from '../diagnostics.ts';

/** What is looked at: as long as OpenTelemetry leaves between two exports, so none is missed, ms. */
const windowMs = 60_000;
/** The window moves by this much, ms. */
const bucketMs = 10_000;
/** Aperture's blueprints alert while fewer are accepted, percent. */
const leastPercent = 90;

/** An alerter as it stands now. */
export interface PolicyAlert {
  readonly alerter: PolicyAlerter;
  readonly isFiring: boolean;
  /** Of the requests that were decided in the last minute; undefined when there were none. */
  readonly acceptedRatio: number | undefined;
}

/**
 * Which policies refuse too many. It counts what this gateway has decided. An alert fires while fewer
 * than 90 % of the requests of the last minute were accepted, and for its resolve timeout after that.
 */
export class PolicyAlerts {
  readonly #now: () => number;
  readonly #decided = new Map<string, Decided>();
  #alerters: readonly PolicyAlerter[] = [];

  /** `now`: a monotonic clock, ms. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  onDecision({ policy, accepted }: RequestDecided): void {
    const decided = this.#decided.get(policy) ?? new Decided();
    this.#decided.set(policy, decided);
    decided.add(accepted, this.#now());
  }

  /** The alerters that there are now; what is known of others is forgotten. */
  onSample({ alerters }: Pick<ClusterSample, 'alerters'>): void {
    this.#alerters = alerters;
    const policies = new Set(alerters.map(({ policy }) => policy));
    for (const policy of this.#decided.keys()) {
      if (!policies.has(policy)) this.#decided.delete(policy);
    }
  }

  read(): PolicyAlert[] {
    const now = this.#now();
    return this.#alerters.map((alerter) => {
      const decided = this.#decided.get(alerter.policy);
      decided?.moveTo(now);
      return {
        alerter,
        isFiring: decided?.isFiring(now, alerter.resolveMs) ?? false,
        acceptedRatio: decided?.acceptedRatio,
      };
    });
  }
}

/** The alerts as gauges. Their attributes are an operator's words, as many as there are policies. */
export function policyAlertGauges(meter: Meter, alerts: PolicyAlerts): void {
  const alert = meter.createObservableGauge('sluice.policy.alert', {
    unit: '1',
    description: 'Whether fewer than 90 % of the requests under a policy are accepted',
  });
  alert.addCallback((result) => {
    for (const { alerter, isFiring } of alerts.read()) {
      result.observe(isFiring ? 1 : 0, attributesOf(alerter));
    }
  });
  const ratio = meter.createObservableGauge('sluice.policy.accepted_ratio', {
    unit: '1',
    description:
      'Of the requests under a policy that were decided in the last minute, the accepted',
  });
  ratio.addCallback((result) => {
    for (const { alerter, acceptedRatio } of alerts.read()) {
      if (acceptedRatio !== undefined) result.observe(acceptedRatio, { policy: alerter.policy });
    }
  });
}

function attributesOf({ policy, name, severity, labels }: PolicyAlerter): Attributes {
  const own = Object.entries(labels).map(([key, value]) => [`label.${key}`, value]);
  return { ...Object.fromEntries(own), policy, alert_name: name, severity };
}

interface Bucket {
  readonly startMs: number;
  accepted: number;
  all: number;
}

/** What was decided under one policy, by buckets of time of which the oldest fall away. */
class Decided {
  readonly #buckets: Bucket[] = [];
  /** When too few were accepted last. */
  #lowAtMs = Number.NEGATIVE_INFINITY;

  add(accepted: boolean, now: number): void {
    this.moveTo(now);
    const startMs = now - (now % bucketMs);
    let bucket = this.#buckets.at(-1);
    if (bucket?.startMs !== startMs) {
      bucket = { startMs, accepted: 0, all: 0 };
      this.#buckets.push(bucket);
    }
    bucket.all += 1;
    if (accepted) bucket.accepted += 1;
  }

  /**
   * One bucket after the other, to know when the last that made it low fell away. Between two calls it
   * is as low as it was, so nothing is missed.
   */
  moveTo(now: number): void {
    for (let [oldest] = this.#buckets; oldest; [oldest] = this.#buckets) {
      const endMs = oldest.startMs + windowMs;
      if (endMs > now) break;
      if (this.#isLow) this.#lowAtMs = endMs;
      this.#buckets.shift();
    }
    if (this.#isLow) this.#lowAtMs = now;
  }

  isFiring(now: number, resolveMs: number): boolean {
    return this.#isLow || now - this.#lowAtMs < resolveMs;
  }

  get acceptedRatio(): number | undefined {
    const { accepted, all } = this.#sum;
    return all === 0 ? undefined : accepted / all;
  }

  get #isLow(): boolean {
    const { accepted, all } = this.#sum;
    return accepted * 100 < all * leastPercent;
  }

  get #sum(): { readonly accepted: number; readonly all: number } {
    return this.#buckets.reduce(
      (sum, { accepted, all }) => ({ accepted: sum.accepted + accepted, all: sum.all + all }),
      { accepted: 0, all: 0 },
    );
  }
}
