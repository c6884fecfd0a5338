import { setTimeout as sleep } from 'node:timers/promises';
import type { Admission, PolicyRecord } from '../admission/index.ts';
import type { Config } from '../config.ts';
import type { Problem } from '../document.ts';
import { SluiceError } from '../errors.ts';
import {
  nameIn,
  type Policy,
  PolicyError,
  parseLimiter,
  parsePolicy,
  parseQueueKey,
  policyWarnings,
} from '../policy/index.ts';
import { policyRecord } from './policy-book.ts';
import type { Rekeyer } from './rekeyer.ts';

/**
 * Changes of policies while requests wait and run. Limits change in the step that takes the policy
 * in, for all gateways; when requests belong into other queues than before, they are keyed anew
 * before the change is answered. A gateway that has not heard of it yet is told at its next submit.
 */

/** Where policies come from that were put here; a start leaves them alone, see lua/configure.lua. */
export const apiSource = 'api';

/** Each request is matched with every policy. */
const mostPolicies = 256;
/** Requests of one read; each page is cancelled before the next one is read. */
const pageItems = 64;
/** How long a removal waits for workers to confirm that they have let go, ms. */
const confirmMs = 10_000;
/** How often it looks, ms. */
const lookMs = 50;
/** How often a removal begins anew because the policies changed meanwhile. */
const removeTries = 5;

export interface Applied {
  readonly record: PolicyRecord;
  /** There was no policy of this name. */
  readonly isNew: boolean;
  /** What is not as its author may think. */
  readonly warnings: readonly string[];
}

export class PolicyChanges {
  readonly #admission: Admission;
  readonly #rekeyer: Rekeyer;
  readonly #models: Config['models'];

  constructor(admission: Admission, rekeyer: Rekeyer, models: Config['models']) {
    this.#admission = admission;
    this.#rekeyer = rekeyer;
    this.#models = models;
  }

  /**
   * Adds the policy or takes it in place of the one of its name. The same content changes nothing.
   * @throws PolicyError with every problem at once
   */
  async apply(name: string, document: unknown): Promise<Applied> {
    const record = recordFor(name, document, this.#models);
    const { policies } = await this.#admission.inspectPolicies();
    const before = policies.find((policy) => policy.name === name);
    if (!before && policies.length >= mostPolicies) {
      throw new SluiceError('invalid_request', `at most ${mostPolicies} policies are allowed`);
    }
    const { applied } = await this.#admission.configure({ policies: [record] });
    await this.#rekeyer.run();
    const isKept = before && !applied.includes(name);
    const others = policies.filter((policy) => policy.name !== name);
    const warnings = [...policyWarnings(document), ...overlaps(record, others)];
    return { record: isKept ? before : record, isNew: !before, warnings };
  }

  /**
   * Takes the policy away. While requests wait or run under it that is refused as `in_use`; by `force`
   * they are cancelled first. Those that arrive meanwhile, or whose workers do not confirm in time,
   * are keyed anew like any other. Returns how many it cancelled.
   */
  async remove(name: string, force: boolean): Promise<number> {
    let cancelled = 0;
    for (let tries = 0; tries < removeTries; tries++) {
      const { version, policies } = await this.#admission.inspectPolicies();
      if (!policies.some((policy) => policy.name === name)) throw unknownPolicy(name);
      if (force) cancelled += await this.#cancelAll(name);
      else await this.#checkUnused(name);
      const result = await this.#admission.removePolicy(name, version, force);
      if (result.status === 'in_use') {
        throw inUse(name, `${result.waiting} wait and ${result.in_flight} run`);
      }
      if (result.status === 'unknown') throw unknownPolicy(name);
      if (result.status === 'configured') {
        await this.#rekeyer.run();
        return cancelled;
      }
    }
    throw new SluiceError('unavailable', 'the policies keep changing; try again');
  }

  /** The step sees whom the policy gives the order; whom it only limits is seen here. */
  async #checkUnused(name: string): Promise<void> {
    for (const hash of ['requests', 'held'] as const) {
      for await (const ids of this.#pagesUnder(name, hash)) {
        if (ids.length > 0) throw inUse(name, `${ids[0]} ${hash === 'held' ? 'runs' : 'waits'}`);
      }
    }
  }

  /** Those who wait first: the slots of those who run are then not taken by others of them. */
  async #cancelAll(name: string): Promise<number> {
    const message = `its policy ${name} was removed`;
    const letGo = new Set<string>();
    let cancelled = 0;
    for (const hash of ['requests', 'held'] as const) {
      for await (const ids of this.#pagesUnder(name, hash)) {
        const results = await Promise.all(ids.map((id) => this.#admission.cancel(id, message)));
        for (const [index, { status }] of results.entries()) {
          const id = ids[index];
          if (status === 'cancelling' && id !== undefined) letGo.add(id);
          if (status === 'cancelling' || status === 'cancelled') cancelled += 1;
        }
      }
    }
    const giveUpAtMs = performance.now() + confirmMs;
    for (let live = letGo; live.size > 0 && performance.now() < giveUpAtMs; ) {
      live = await this.#admission.inspectLive([...live]);
      if (live.size > 0) await sleep(lookMs);
    }
    return cancelled;
  }

  async *#pagesUnder(name: string, hash: 'requests' | 'held'): AsyncGenerator<string[]> {
    let cursor = '0';
    do {
      const page = await this.#admission.inspectPage(hash, cursor, pageItems);
      cursor = page.cursor;
      yield page.requests.filter(({ queue }) => isUnder(queue, name)).map(({ id }) => id);
    } while (cursor !== '0');
  }
}

/** Whether the policy gives a queue its order or one of its limiters. */
function isUnder(queue: string, name: string): boolean {
  const parsed = parseQueueKey(queue);
  if (!parsed) return false;
  if (parsed.policy === name) return true;
  return parsed.limiters.map(parseLimiter).some((limiter) => {
    return 'policy' in limiter && limiter.policy === name;
  });
}

function recordFor(name: string, document: unknown, models: Config['models']): PolicyRecord {
  const problems: Problem[] = [];
  const stated = nameIn(document);
  if (typeof stated.name === 'string' && stated.name !== name) {
    const reason = 'must be the name in the path: one is changed by its own name';
    problems.push({ path: stated.path, reason });
  }
  try {
    const record = policyRecord(apiSource, document, models);
    if (problems.length === 0) return record;
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    problems.push(...error.problems);
  }
  throw new PolicyError(problems);
}

/** Of several policies with an order at one control point only the first in name order gives it. */
function overlaps({ document }: PolicyRecord, others: readonly PolicyRecord[]): string[] {
  const policy = parsePolicy(document);
  const pointsOf = ({ selectors }: Policy) => selectors.map(({ controlPoint }) => controlPoint);
  const hasOrder = ({ kind }: Policy) => kind === 'concurrency' || kind === 'quota';
  return others.flatMap((other) => {
    const theirs = parsePolicy(other.document);
    const own = new Set(pointsOf(policy));
    const shared = pointsOf(theirs).filter((point) => own.has(point));
    if (shared.length === 0 || !hasOrder(policy) || !hasOrder(theirs)) return [];
    const [first] = [policy.name, theirs.name].toSorted();
    const at = [...new Set(shared)].join(', ');
    return [
      `policy ${theirs.name} selects ${at}, too: both limits hold, and ${first} gives the order`,
    ];
  });
}

export function unknownPolicy(name: string): SluiceError {
  return new SluiceError('not_found', `there is no policy ${name}`);
}

function inUse(name: string, who: string): SluiceError {
  const message = `policy ${name} is in use: ${who} under it. ?force=true cancels them and removes it`;
  return new SluiceError('in_use', message);
}
