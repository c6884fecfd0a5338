/**
 * The order, as plainly as it can be said: every rule of docs/design.md by brute force over all
 * requests, with no index and no gate. It shares nothing with the Lua. Shares are computed in the
 * same integers of 1/1000 token.
 */

import { parseQueueKey } from '../../src/policy/index.ts';

interface Node {
  start: number;
  debt: number;
  v: number;
  /** v of its parent when it could not run first; its own time stands still since. */
  parked: number | undefined;
  /** v of its parent when its start was fixed. */
  seen: number;
}

export interface ModelRequest {
  readonly id: string;
  readonly queue: string;
  readonly cost: number;
  readonly sequence: number;
  readonly limiters: readonly string[];
  /** policy, workload, fairness key: paths in the tree. */
  readonly paths: readonly [string, string, string];
  readonly weights: readonly [number, number, number];
  state: 'waiting' | 'held';
}

const units = (cost: number, weight: number) =>
  Math.max(1, Math.floor((cost * 1000) / weight + 0.5));

export class Model {
  /** Units by limit key; a limiter without one is unlimited, a pool without one closed. */
  readonly limits = new Map<string, number>();
  readonly #nodes = new Map<string, Node>();
  readonly #requests = new Map<string, ModelRequest>();
  #sequence = 0;

  /** A request arrives; returns who is admitted by that, in order. */
  submit(id: string, queue: string, cost: number): string[] {
    const request = makeRequest(id, queue, cost, ++this.#sequence);
    this.#join(request);
    return this.#admit();
  }

  /** A waiting or held request ends; a held one settles its actual cost. */
  end(id: string, tokens?: number): string[] {
    const request = this.#get(id);
    this.#requests.delete(id);
    for (const [level, path] of request.paths.entries()) {
      const node = this.#node(path);
      const weight = request.weights[level] ?? 1;
      if (request.state === 'held') {
        const actual = Math.min(Math.max(tokens ?? request.cost, 1), 10_000_000);
        node.debt += units(actual, weight) - units(request.cost, weight);
      }
      this.#rest(path);
    }
    this.#resetWhenEmpty();
    return this.#admit();
  }

  setLimit(limitKey: string, limit: number): void {
    this.limits.set(limitKey, limit);
  }

  admit(): string[] {
    return this.#admit();
  }

  #join(request: ModelRequest): void {
    const [policy, workload, key] = request.paths;
    // A workload that virtual time has passed while it had nothing begins anew.
    const idle = this.#under(workload).length === 0;
    if (idle && this.#node(workload).start <= this.#node(policy).v) {
      this.#node(workload).v = 0;
      for (const path of [...this.#nodes.keys()]) {
        if (path.startsWith(`${workload}/`)) this.#nodes.delete(path);
      }
    }
    for (const [path, parent] of [
      [policy, '.'],
      [workload, policy],
      [key, workload],
    ] as const) {
      if (this.#waiting(path).length === 0) {
        const node = this.#node(path);
        node.start = Math.max(node.start, this.#node(parent).v);
        node.seen = this.#node(parent).v;
      }
    }
    this.#requests.set(request.id, request);
  }

  #admit(): string[] {
    const admitted: string[] = [];
    for (;;) {
      const eligible = this.#eligible();
      const first = this.#choose(eligible);
      if (!first) return admitted;
      this.#charge(first, eligible);
      admitted.push(first.id);
    }
  }

  /** Heads of queues whose limiters all have a free unit. */
  #eligible(): ModelRequest[] {
    const free = (name: string) => {
      const limitKey = name.split('=')[0] ?? name;
      const missing = limitKey.startsWith('pool:') ? 0 : Number.POSITIVE_INFINITY;
      const taken = [...this.#requests.values()].filter(
        (one) => one.state === 'held' && one.limiters.includes(name),
      );
      return (this.limits.get(limitKey) ?? missing) - taken.length;
    };
    return [...this.#requests.values()].filter(
      (one) =>
        one.state === 'waiting' &&
        this.#headOf(one.queue) === one &&
        one.limiters.every((name) => free(name) > 0),
    );
  }

  /** Down the tree: the smallest tag, then the older head; in a key the oldest. */
  #choose(eligible: readonly ModelRequest[]): ModelRequest | undefined {
    const headOfKey = minimal(eligible, 2, (a, b) => a.sequence - b.sequence);
    const order = (level: 0 | 1 | 2) => (a: ModelRequest, b: ModelRequest) =>
      this.#tag(a, level) - this.#tag(b, level) || a.sequence - b.sequence;
    const headOfWorkload = minimal(headOfKey, 1, order(2));
    for (const one of headOfWorkload) this.#unpark(one, 1);
    const headOfPolicy = minimal(headOfWorkload, 0, order(1));
    for (const one of headOfPolicy) this.#unpark(one, 0);
    return headOfPolicy.toSorted(order(0))[0];
  }

  #tag(request: ModelRequest, level: 0 | 1 | 2): number {
    return this.#node(request.paths[level]).start + units(request.cost, request.weights[level]);
  }

  /** The time of a node stands still while nothing in it can run. */
  #unpark(request: ModelRequest, level: 0 | 1): void {
    const node = this.#node(request.paths[level]);
    if (node.parked === undefined) return;
    node.start += this.#node(this.#parent(request, level)).v - node.parked;
    node.parked = undefined;
  }

  #charge(request: ModelRequest, eligible: readonly ModelRequest[]): void {
    request.state = 'held';
    for (const level of [0, 1, 2] as const) {
      const path = request.paths[level];
      const node = this.#node(path);
      const parent = this.#node(this.#parent(request, level));
      const length = units(request.cost, request.weights[level]);
      let tag = node.start + length;
      if (level === 2 && tag < parent.v && parent.v > node.seen) tag = parent.v;
      const before = parent.v;
      parent.v = Math.max(parent.v, tag);
      const settled = tag + node.debt;
      node.start = Math.max(tag - length, settled);
      node.debt = settled - node.start;
      node.seen = parent.v;
      this.#rest(path);
      if (parent.v > before && level < 2) this.#park(request, level as 0 | 1, eligible, before);
    }
  }

  /** Siblings that could not run while v moved. */
  #park(chosen: ModelRequest, level: 0 | 1, eligible: readonly ModelRequest[], v: number): void {
    const parent = this.#parent(chosen, level);
    for (const one of this.#requests.values()) {
      const path = one.paths[level];
      const sibling = one.state === 'waiting' && this.#parent(one, level) === parent;
      if (sibling && !eligible.some((other) => other.paths[level] === path)) {
        this.#node(path).parked ??= v;
      }
    }
  }

  /** With nothing waiting, debt counts at once; parked is for those who wait. */
  #rest(path: string): void {
    if (this.#waiting(path).length > 0) return;
    const node = this.#node(path);
    node.start = Math.max(0, node.start + node.debt);
    node.debt = 0;
    node.parked = undefined;
  }

  #resetWhenEmpty(): void {
    if (this.#requests.size === 0) this.#nodes.clear();
  }

  #headOf(queue: string): ModelRequest | undefined {
    const waiting = [...this.#requests.values()].filter(
      (one) => one.queue === queue && one.state === 'waiting',
    );
    return waiting.toSorted((a, b) => a.sequence - b.sequence)[0];
  }

  #parent(request: ModelRequest, level: 0 | 1 | 2): string {
    return level === 0 ? '.' : request.paths[(level - 1) as 0 | 1];
  }

  #under(path: string): ModelRequest[] {
    return [...this.#requests.values()].filter((one) => one.paths.includes(path));
  }

  #waiting(path: string): ModelRequest[] {
    return this.#under(path).filter((one) => one.state === 'waiting');
  }

  #node(path: string): Node {
    const node = this.#nodes.get(path) ?? {
      start: 0,
      debt: 0,
      v: 0,
      parked: undefined,
      seen: 0,
    };
    this.#nodes.set(path, node);
    return node;
  }

  #get(id: string): ModelRequest {
    const request = this.#requests.get(id);
    if (!request) throw new Error(`${id} is not live in the model`);
    return request;
  }
}

function makeRequest(id: string, queue: string, cost: number, sequence: number): ModelRequest {
  const name = parseQueueKey(queue);
  if (!name) throw new Error(`not a queue: ${queue}`);
  const [policy = '', workload = '', key = ''] = queue.split('/');
  return {
    id,
    queue,
    cost,
    sequence,
    limiters: name.limiters,
    paths: [policy, `${policy}/${workload}`, `${policy}/${workload}/${key}`],
    weights: [1, name.priority, 1],
    state: 'waiting',
  };
}

/** The first of each group of requests that share a node at this level. */
function minimal(
  requests: readonly ModelRequest[],
  level: 0 | 1 | 2,
  compare: (a: ModelRequest, b: ModelRequest) => number,
): ModelRequest[] {
  const groups = Map.groupBy(requests, (one) => one.paths[level]);
  return [...groups.values()].flatMap((group) => group.toSorted(compare).slice(0, 1));
}
