/**
 * What docs/fairness.md promises at one node of the tree, checked from outside: only who waits, who
 * may go and who was admitted is known here, no tag and no virtual time. Service is counted at
 * admission, in the order of admissions, in the engine's own integers of 1/1000 token over weight,
 * so the bounds hold without any slack.
 */

/** A child of the node at the moment of a decision. */
export interface Candidate {
  readonly weight: number;
  /** The largest cost of a request of this child that may be admitted now. */
  readonly cost: number;
  /** Which request is first; it can change without an admission. Absent for inner nodes. */
  readonly head?: string;
}

/** One admission below the node. */
export interface Decision {
  readonly chosen: string;
  readonly cost: number;
  /** Children that could have been admitted; `chosen` is one of them. */
  readonly candidates: ReadonlyMap<string, Candidate>;
  /** Weights of all children that have requests waiting, blocked ones too. */
  readonly backlogged: ReadonlyMap<string, number>;
}

export class Unfair extends Error {
  readonly kind: 'bound' | 'credit' | 'delay' | 'idle' | 'limit';

  constructor(kind: Unfair['kind'], message: string) {
    super(`${kind}: ${message}`);
    this.name = 'Unfair';
    this.kind = kind;
  }
}

/** Since when a child has been backlogged and eligible at every decision. */
interface Period {
  head: string | undefined;
  gap: Gap | undefined;
  /** How far others, in a period or not, were behind it at most, since this one began. */
  readonly lows: Map<Child, number>;
}

/** Since a child's last admission: what the others got. */
interface Gap {
  /** Who was there when it began. */
  readonly present: Set<Child>;
  /** What those of them could have ahead who are gone. */
  allowance: number;
  weightMax: number;
  served: number;
}

/** A child with requests waiting. */
interface Child {
  readonly name: string;
  readonly weight: number;
  served: number;
  /** The largest length of a head since it became backlogged. */
  lengthMax: number;
  period: Period | undefined;
  /** How far it has been ahead of others since both have been eligible at the same decisions. */
  readonly ranges: Map<Child, Range>;
}

/** How far one child has been ahead of another, in normalized service. */
interface Range {
  low: number;
  high: number;
}

/** Tag units, as the engine rounds them. */
function unitsOf(cost: number, weight: number): number {
  return Math.max(1, Math.floor((cost * 1000) / weight + 0.5));
}

export class Share {
  readonly #name: string;
  readonly #clockStops: boolean;
  readonly #children = new Map<string, Child>();

  /**
   * `clockStops`: the children's own time stands still while they are blocked, so that two that are
   * blocked at the same decisions stay as far apart as they were.
   */
  constructor(name: string, clockStops: boolean) {
    this.#name = name;
    this.#clockStops = clockStops;
  }

  /** The child has nothing waiting any more. Whatever it was behind lapses. */
  rests(name: string): void {
    const child = this.#children.get(name);
    if (!child) return;
    this.#children.delete(name);
    for (const { period, ranges } of this.#children.values()) {
      ranges.delete(child);
      period?.lows.delete(child);
      if (period?.gap?.present.delete(child)) {
        period.gap.allowance += child.weight * child.lengthMax;
      }
    }
  }

  /** An admission: who was eligible, and who got it. Throws what it breaks. */
  decide(decision: Decision): void {
    const { chosen, candidates, cost } = decision;
    for (const [name, weight] of decision.backlogged) this.#meet(name, weight);
    for (const child of this.#children.values()) {
      if (!candidates.has(child.name)) child.period = undefined;
    }
    for (const [name, candidate] of candidates) this.#attend(this.#child(name), candidate);
    this.#pairUp();
    const winner = this.#child(chosen);
    const others = [...this.#children.values()].filter((child) => child !== winner);
    const weights = others.reduce((sum, { weight }) => sum + weight, winner.weight);
    winner.served += unitsOf(cost, winner.weight);
    for (const other of others) {
      this.#checkRange(winner, other);
      this.#checkCredit(winner, other);
      this.#checkGap(winner, cost, other, weights - other.weight);
    }
    if (winner.period) {
      winner.period.gap = this.#newGap(winner);
      winner.period.head = undefined;
    }
  }

  #meet(name: string, weight: number): void {
    if (this.#children.has(name)) return;
    const child: Child = {
      name,
      weight,
      served: 0,
      lengthMax: 0,
      period: undefined,
      ranges: new Map(),
    };
    this.#children.set(name, child);
    for (const other of this.#children.values()) {
      other.period?.lows.set(child, -other.served);
    }
  }

  #attend(child: Child, { cost, head }: Candidate): void {
    child.lengthMax = Math.max(child.lengthMax, unitsOf(cost, child.weight));
    // Another head without an admission: what the old one had waited for is not the new one's.
    if (child.period?.head !== undefined && child.period.head !== head) {
      child.period = undefined;
      this.#unpair(child);
    }
    child.period ??= this.#newPeriod(child);
    child.period.head = head;
  }

  #newPeriod(child: Child): Period {
    const lows = new Map<Child, number>();
    for (const other of this.#children.values()) {
      if (other !== child) lows.set(other, other.served - child.served);
    }
    return { head: undefined, gap: this.#newGap(child), lows };
  }

  #unpair(child: Child): void {
    child.ranges.clear();
    for (const { ranges } of this.#children.values()) ranges.delete(child);
  }

  /** Who is eligible while another is not goes its own way from here on. */
  #pairUp(): void {
    for (const one of this.#children.values()) {
      for (const two of this.#children.values()) {
        const [first, second] = [one.period !== undefined, two.period !== undefined];
        if (one === two || (!first && !second && this.#clockStops)) continue;
        if (!first || !second) {
          one.ranges.delete(two);
        } else if (!one.ranges.has(two)) {
          const ahead = one.served - two.served;
          one.ranges.set(two, { low: ahead, high: ahead });
        }
      }
    }
  }

  #newGap(child: Child): Gap {
    const present = new Set(this.#children.values());
    present.delete(child);
    return { present, allowance: 0, weightMax: 0, served: 0 };
  }

  /** Two that are eligible together: every interval at once, as the largest minus the least. */
  #checkRange(winner: Child, other: Child): void {
    for (const [one, two] of [
      [winner, other],
      [other, winner],
    ] as const) {
      const range = one.ranges.get(two);
      if (!range) continue;
      const ahead = one.served - two.served;
      range.low = Math.min(range.low, ahead);
      range.high = Math.max(range.high, ahead);
      const bound = one.lengthMax + two.lengthMax;
      const apart = range.high - range.low;
      if (apart > bound) {
        const who = `${one.name} and ${two.name} under ${this.#name}`;
        throw new Unfair('bound', `${who} are ${apart} apart, not ${bound}`);
      }
    }
  }

  /** Nobody, blocked or absent for a time, gets ahead of one that is eligible throughout. */
  #checkCredit(winner: Child, other: Child): void {
    const behind = winner.period?.lows.get(other);
    if (behind !== undefined) {
      winner.period?.lows.set(other, Math.min(behind, other.served - winner.served));
    }
    const low = other.period?.lows.get(winner);
    if (low === undefined) return;
    const gain = winner.served - other.served - low;
    const bound = winner.lengthMax + other.lengthMax;
    if (gain > bound) {
      const who = `${winner.name} under ${this.#name}`;
      throw new Unfair('credit', `${who} got ${gain} more than ${other.name}, not ${bound}`);
    }
  }

  /** While an eligible child gets nothing, all others together get a bounded amount. */
  #checkGap(winner: Child, cost: number, other: Child, weights: number): void {
    const gap = other.period?.gap;
    if (!gap) return;
    gap.weightMax = Math.max(gap.weightMax, weights);
    gap.served += unitsOf(cost, winner.weight) * winner.weight;
    let bound = gap.weightMax * other.lengthMax + gap.allowance;
    for (const child of gap.present) bound += child.weight * child.lengthMax;
    // Products with weights are not whole numbers.
    if (gap.served > bound * (1 + 1e-9) + 1) {
      const who = `${other.name} under ${this.#name}`;
      throw new Unfair('delay', `${who} waits while others get ${gap.served}, not ${bound}`);
    }
  }

  #child(name: string): Child {
    const child = this.#children.get(name);
    if (!child) throw new Error(`${name} of ${this.#name} has nothing waiting`);
    return child;
  }
}
