/** Everybody's requests as a caller sees them, and the check of each admission against the rules. */

import { type Candidate, type Decision, Share, Unfair } from './share.ts';

export interface LedgerRequest {
  readonly id: string;
  readonly workload: string;
  readonly weight: number;
  readonly key: string;
  readonly cost: number;
  /** All that it needs a unit of. */
  readonly limiters: readonly string[];
}

export class Ledger {
  readonly #limitOf: (limiter: string) => number;
  /** In the order of arrival. */
  readonly #waiting = new Map<string, LedgerRequest>();
  readonly #held = new Map<string, LedgerRequest>();
  readonly #taken = new Map<string, number>();
  readonly #policy = new Share('the policy', true);
  readonly #workloads = new Map<string, Share>();

  constructor(limitOf: (limiter: string) => number) {
    this.#limitOf = limitOf;
  }

  arrived(request: LedgerRequest): void {
    this.#waiting.set(request.id, request);
  }

  /** A waiting request is gone. */
  left(id: string): void {
    const request = this.#waiting.get(id);
    if (!request) return;
    this.#waiting.delete(id);
    this.#rest(request);
  }

  /** A holder gives its units back. */
  ended(id: string): void {
    for (const limiter of this.#held.get(id)?.limiters ?? []) {
      this.#taken.set(limiter, (this.#taken.get(limiter) ?? 0) - 1);
    }
    this.#held.delete(id);
  }

  admitted(id: string): void {
    const request = this.#waiting.get(id);
    if (!request) throw new Unfair('limit', `${id} was admitted and does not wait`);
    if (!this.#isFree(request)) {
      throw new Unfair(
        'limit',
        `${request.key} was admitted past ${request.limiters.join(' or ')}`,
      );
    }
    const { cost, workload, key } = request;
    const heads = this.#eligibleHeads();
    const { candidates, backlogged } = this.#workloadsNow(heads);
    this.#policy.decide({ chosen: workload, cost, candidates, backlogged });
    this.#share(workload).decide({ chosen: key, cost, ...this.#keysNow(workload, heads) });
    this.#waiting.delete(id);
    this.#held.set(id, request);
    for (const limiter of request.limiters) {
      this.#taken.set(limiter, (this.#taken.get(limiter) ?? 0) + 1);
    }
    this.#rest(request);
  }

  /** After a step: no unit is free that somebody waits for. */
  settled(): void {
    for (const request of this.#waiting.values()) {
      if (this.#isFree(request)) throw new Unfair('idle', `${request.key} waits and may go`);
    }
  }

  get holders(): string[] {
    return [...this.#held.keys()];
  }

  isFull(limiter: string): boolean {
    return (this.#taken.get(limiter) ?? 0) >= this.#limitOf(limiter);
  }

  waits(id: string): boolean {
    return this.#waiting.has(id);
  }

  /** For each fairness key its oldest request that may go. */
  #eligibleHeads(): Map<string, LedgerRequest> {
    const heads = new Map<string, LedgerRequest>();
    for (const request of this.#waiting.values()) {
      const node = `${request.workload} ${request.key}`;
      if (!heads.has(node) && this.#isFree(request)) heads.set(node, request);
    }
    return heads;
  }

  #workloadsNow(heads: ReadonlyMap<string, LedgerRequest>) {
    const candidates = new Map<string, Candidate>();
    for (const { workload, weight, cost } of heads.values()) {
      const known = candidates.get(workload)?.cost ?? 0;
      candidates.set(workload, { weight, cost: Math.max(known, cost) });
    }
    const backlogged = new Map<string, number>();
    for (const { workload, weight } of this.#waiting.values()) backlogged.set(workload, weight);
    return { candidates, backlogged };
  }

  #keysNow(
    workload: string,
    heads: ReadonlyMap<string, LedgerRequest>,
  ): Pick<Decision, 'candidates' | 'backlogged'> {
    const candidates = new Map<string, Candidate>();
    for (const head of heads.values()) {
      if (head.workload !== workload) continue;
      candidates.set(head.key, { weight: 1, cost: head.cost, head: head.id });
    }
    const backlogged = new Map<string, number>();
    for (const one of this.#waiting.values()) {
      if (one.workload === workload) backlogged.set(one.key, 1);
    }
    return { candidates, backlogged };
  }

  #rest({ workload, key }: LedgerRequest): void {
    const left = [...this.#waiting.values()].filter((one) => one.workload === workload);
    if (left.length === 0) this.#policy.rests(workload);
    if (!left.some((one) => one.key === key)) this.#share(workload).rests(key);
  }

  #isFree({ limiters }: LedgerRequest): boolean {
    return limiters.every((limiter) => !this.isFull(limiter));
  }

  #share(workload: string): Share {
    const share = this.#workloads.get(workload) ?? new Share(workload, false);
    this.#workloads.set(workload, share);
    return share;
  }
}
