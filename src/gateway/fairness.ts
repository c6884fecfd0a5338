import type { DomainView } from '../admission/index.ts';
import type { FairnessGap } from '../diagnostics.ts';

/**
 * How far apart those who wait have been served, against how far apart they may be.
 *
 * A node of the tree serves its children in proportion to their weights. What each has been served,
 * in tokens over its weight, is `start` in the node's virtual time; while two children wait and may
 * run, theirs differ by at most l1/w1 + l2/w2, where l is the largest cost of a request (Golestani,
 * INFOCOM 1994). What was served is counted as it was charged at admission; a settlement, which
 * counts from the child's next admission, can take the gap past the bound for a time.
 */

/** Workloads remembered; the engine keeps no more of them apart. */
const mostWorkloads = 128;

/** The largest cost of a request that this gateway has seen in each workload since its start. */
export class LargestCosts {
  readonly #largest = new Map<string, number>();

  /** A request of `queue` was taken in. */
  saw(queue: string, cost: number): void {
    const workload = workloadOf(queue);
    const before = this.#largest.get(workload);
    if (before !== undefined && before >= cost) return;
    this.#largest.set(workload, cost);
    if (this.#largest.size <= mostWorkloads) return;
    const [oldest] = this.#largest.keys();
    if (oldest !== undefined) this.#largest.delete(oldest);
  }

  /** For a policy or a workload; for a workload never seen here, what its policy's others cost. */
  of(path: string): number {
    const policy = policyOf(path);
    const ofPolicy = [...this.#largest].filter(([workload]) => policyOf(workload) === policy);
    return this.#largest.get(path) ?? Math.max(0, ...ofPolicy.map(([, cost]) => cost));
  }
}

/** The name under which what is among policies is told: no policy can be called so. */
const amongPolicies = '(all)';

/** For each policy the gap among its workloads, and that among the policies themselves. */
export function fairnessGaps(nodes: DomainView['nodes'], costs: LargestCosts): FairnessGap[] {
  const inner = nodes.filter(({ path }) => path !== '.');
  const policies = inner.filter(({ path }) => !path.includes('/'));
  const parents = policies.map(({ path }) => ({
    policy: decodeURIComponent(path),
    children: inner.filter((node) => node.path !== path && policyOf(node.path) === path),
  }));
  return [{ policy: amongPolicies, children: policies }, ...parents].map(({ policy, children }) => {
    const compared = children.filter(({ waiting, parked }) => waiting > 0 && !parked);
    if (compared.length < 2) return { policy, gap: 0, bound: 0 };
    const starts = compared.map(({ start }) => Number(start));
    const [first = 0, second = 0] = compared
      .map(({ path }) => costs.of(path) / weightOf(path))
      .toSorted((a, b) => b - a);
    return {
      policy,
      gap: (Math.max(...starts) - Math.min(...starts)) / 1_000,
      bound: first + second,
    };
  });
}

/** `policy/workload@weight` of a queue's name. */
function workloadOf(queue: string): string {
  return queue.split('/', 2).join('/');
}

function policyOf(path: string): string {
  return path.split('/', 1)[0] ?? path;
}

/** Of a workload; policies share equally. */
function weightOf(path: string): number {
  const weight = path.split('@')[1];
  return weight === undefined ? 1 : Number(weight);
}
