/**
 * The order, as plainly as it can be said: every rule of docs/design.md by brute force over all
 * requests, with no index. Shares are computed in the same integers of 1/1000 token.
 */

/** What the order knows of a request. */
export interface Sharer {
  readonly id: string;
  readonly cost: number;
  readonly sequence: number;
  readonly isWaiting: boolean;
  readonly place: Place;
}

/** A queue's place in the tree. */
export interface Place {
  readonly queue: string;
  readonly limiters: readonly string[];
  /** policy, workload, fairness key: paths in the tree. */
  readonly paths: readonly [string, string, string];
  readonly weights: readonly [number, number, number];
}

interface Node {
  start: number;
  debt: number;
  v: number;
  /** v of its parent when it could not run first; its own time stands still since. */
  parked: number | undefined;
  /** v of its parent when its start was fixed. */
  seen: number;
}

const levels = [0, 1, 2] as const;
type Level = (typeof levels)[number];

export class Shares {
  readonly #live: () => Iterable<Sharer>;
  #nodes = new Map<string, Node>();

  constructor(live: () => Iterable<Sharer>) {
    this.#live = live;
  }

  /** Before a request joins. A workload that virtual time has passed while it had nothing begins anew. */
  beforeJoin({ paths: [policy, workload] }: Place): void {
    if (this.#count(workload) > 0 || this.#node(workload).start > this.#node(policy).v) return;
    this.#node(workload).v = 0;
    for (const path of [...this.#nodes.keys()]) {
      if (path.startsWith(`${workload}/`)) this.#nodes.delete(path);
    }
  }

  /** A request is about to wait: who becomes backlogged starts at virtual time, or later. */
  join(place: Place): void {
    this.beforeJoin(place);
    for (const level of levels) {
      const path = place.paths[level];
      if (this.#countWaiting(path) > 0) continue;
      const node = this.#node(path);
      node.seen = this.#node(parentOf(place, level)).v;
      node.start = Math.max(node.start, node.seen);
    }
  }

  /** An admitted request came to nothing and is about to wait again: it is not charged any more. */
  giveBack(place: Place, cost: number): void {
    for (const level of levels) {
      const node = this.#node(place.paths[level]);
      const refund = units(cost, place.weights[level]);
      this.#unpark(place, level);
      // The tags of those of the key who wait stand: it is their next admission that costs less.
      if (level === 2 && this.#countWaiting(place.paths[level]) > 0) {
        node.debt -= refund;
        continue;
      }
      node.seen = this.#node(parentOf(place, level)).v;
      node.start = Math.max(0, node.start - refund, node.seen - refund);
    }
  }

  /** A request has left its place: was cancelled, has ended, or stands elsewhere now. */
  left(place: Place): void {
    for (const path of place.paths) this.#rest(path);
  }

  /** A held request has ended: the actual cost takes the place of the charged one. */
  settle(place: Place, charged: number, actual: number): void {
    for (const level of levels) {
      const weight = place.weights[level];
      this.#node(place.paths[level]).debt += units(actual, weight) - units(charged, weight);
    }
    this.left(place);
  }

  /** With nothing waiting and nothing held, virtual time starts again from 0. */
  reset(): void {
    this.#nodes = new Map();
  }

  /** Down the tree: the smallest tag, then the older head; in a key the oldest. */
  choose(eligible: readonly Sharer[]): Sharer | undefined {
    const headOfKey = minimal(eligible, 2, (a, b) => a.sequence - b.sequence);
    const order = (level: Level) => (a: Sharer, b: Sharer) =>
      this.#tag(a, level) - this.#tag(b, level) || a.sequence - b.sequence;
    const headOfWorkload = minimal(headOfKey, 1, order(2));
    for (const one of headOfWorkload) this.#unpark(one.place, 1);
    const headOfPolicy = minimal(headOfWorkload, 0, order(1));
    for (const one of headOfPolicy) this.#unpark(one.place, 0);
    return headOfPolicy.toSorted(order(0))[0];
  }

  /** Admits one of the eligible, which does not wait any more. */
  charge(request: Sharer, eligible: readonly Sharer[]): void {
    for (const level of levels) {
      const path = request.place.paths[level];
      const node = this.#node(path);
      const parent = this.#node(parentOf(request.place, level));
      const length = units(request.cost, request.place.weights[level]);
      let tag = node.start + length;
      // A key that v has passed stood blocked: next in line, with nothing saved up.
      if (level === 2 && tag < parent.v && parent.v > node.seen) tag = parent.v;
      const before = parent.v;
      parent.v = Math.max(parent.v, tag);
      // A refund never takes start back: what is left of it counts later.
      const settled = tag + node.debt;
      node.start = Math.max(tag - length, settled);
      node.debt = settled - node.start;
      node.seen = parent.v;
      this.#rest(path);
      if (parent.v > before && level < 2) this.#park(request.place, level, eligible, before);
    }
  }

  #tag({ place, cost }: Sharer, level: Level): number {
    return this.#node(place.paths[level]).start + units(cost, place.weights[level]);
  }

  /** The time of a node stands still while nothing in it can run. */
  #unpark(place: Place, level: Level): void {
    const node = this.#node(place.paths[level]);
    if (node.parked === undefined) return;
    node.start += this.#node(parentOf(place, level)).v - node.parked;
    node.parked = undefined;
  }

  /** Siblings that could not run while v moved. */
  #park(chosen: Place, level: Level, eligible: readonly Sharer[], v: number): void {
    const parent = parentOf(chosen, level);
    const couldRun = new Set(eligible.map(({ place }) => place.paths[level]));
    for (const { isWaiting, place } of this.#live()) {
      const sibling = isWaiting && parentOf(place, level) === parent;
      if (sibling && !couldRun.has(place.paths[level])) this.#node(place.paths[level]).parked ??= v;
    }
  }

  /** With nothing waiting, debt counts at once; parked is for those who wait. */
  #rest(path: string): void {
    if (this.#countWaiting(path) > 0) return;
    const node = this.#node(path);
    node.start = Math.max(0, node.start + node.debt);
    node.debt = 0;
    node.parked = undefined;
  }

  #count(path: string): number {
    let count = 0;
    for (const { place } of this.#live()) if (place.paths.includes(path)) count += 1;
    return count;
  }

  #countWaiting(path: string): number {
    let count = 0;
    for (const { place, isWaiting } of this.#live()) {
      if (isWaiting && place.paths.includes(path)) count += 1;
    }
    return count;
  }

  #node(path: string): Node {
    let node = this.#nodes.get(path);
    if (!node) {
      node = { start: 0, debt: 0, v: 0, parked: undefined, seen: 0 };
      this.#nodes.set(path, node);
    }
    return node;
  }
}

function units(cost: number, weight: number): number {
  return Math.max(1, Math.floor((cost * 1000) / weight + 0.5));
}

function parentOf(place: Place, level: Level): string {
  return level === 0 ? '.' : place.paths[level === 1 ? 0 : 1];
}

/** The first of each group of requests that share a node at this level. */
function minimal(
  requests: readonly Sharer[],
  level: Level,
  compare: (a: Sharer, b: Sharer) => number,
): Sharer[] {
  const groups = Map.groupBy(requests, (one) => one.place.paths[level]);
  return [...groups.values()].flatMap((group) => group.toSorted(compare).slice(0, 1));
}
