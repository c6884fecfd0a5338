import type { Admission, PolicyRecord } from '../admission/index.ts';
import { type Config, replicaRecord } from '../config.ts';
import { type Problem, shown } from '../document.ts';
import { SluiceError } from '../errors.ts';
import {
  limitsOf,
  type Policy,
  PolicyError,
  parsePolicy,
  policyWarnings,
  slotsPath,
} from '../policy/index.ts';

/**
 * The policies this gateway schedules with, and their version in Redis. A step refuses a schedule
 * of another version, the gateway reads again and schedules anew: gateways cannot disagree.
 */
export class PolicyBook {
  readonly #admission: Admission;
  #version = 0;
  #policies: readonly Policy[] = [];
  #paused: ReadonlySet<string> = new Set();
  #reading: Promise<void> | undefined;

  constructor(admission: Admission) {
    this.#admission = admission;
  }

  get version(): number {
    return this.#version;
  }

  get policies(): readonly Policy[] {
    return this.#policies;
  }

  /** Control points where nobody is admitted, of the same version. */
  get paused(): ReadonlySet<string> {
    return this.#paused;
  }

  /** Reads what the cluster has now. */
  async refresh(): Promise<void> {
    const { version, policies, paused } = await this.#admission.inspectPolicies();
    this.#paused = new Set(paused);
    this.#policies = policies.map(readable).toSorted((a, b) => (a.name < b.name ? -1 : 1));
    this.#version = version;
  }

  /**
   * Reads again unless `version`, which a step has told, is here already. A change meets many
   * requests at once: they share one read, and whoever finds that it was too early asks again.
   */
  async follow(version: number): Promise<void> {
    if (version === this.#version) return;
    this.#reading ??= this.refresh().finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
  }

  /** The policies with a selector of this control point, in name order. */
  selecting(controlPoint: string): readonly Policy[] {
    return this.#policies.filter((policy) =>
      policy.selectors.some((selector) => selector.controlPoint === controlPoint),
    );
  }
}

/** Callers may name any control point; metrics must not grow with what they name. */
export function boundedControlPoint(book: PolicyBook, config: Config, name: string): string {
  return knownControlPoints(book, config).includes(name) ? name : 'other';
}

/** A policy that this version cannot read was written by a newer one: others can schedule with it. */
function readable({ name, document }: PolicyRecord): Policy {
  try {
    return parsePolicy(document);
  } catch (cause) {
    const message = `this gateway cannot read policy ${name}: a newer version wrote it, upgrade this one`;
    throw new SluiceError('unavailable', message, { cause });
  }
}

/** The control points that somebody has set up: callers may name others, of any number. */
export function knownControlPoints(book: PolicyBook, config: Config): readonly string[] {
  const ofPolicies = book.policies.flatMap((policy) =>
    policy.selectors.map((selector) => selector.controlPoint),
  );
  const ofModels = Object.values(config.models).map((model) => model.controlPoint);
  return [...new Set([...ofPolicies, ...ofModels])].toSorted();
}

/**
 * Brings the config's policies and replicas to Redis, and returns warnings: about policies that were
 * not applied, and about what has no effect in those that were. Throws PolicyError with all problems
 * of all.
 */
export async function applyConfig(admission: Admission, config: Config): Promise<string[]> {
  const { records, problems } = readPolicies(config.policies, config.models);
  if (problems.length > 0) throw new PolicyError(problems);
  const replicas = Object.fromEntries(
    Object.entries(config.pools)
      .filter(([, pool]) => pool.replicas.length > 0)
      .map(([name, pool]) => [name, pool.replicas.map((replica) => replicaRecord(replica, pool))]),
  );
  const result = await admission.configure({ policies: records, replicas });
  const { kept = [], busy = [] } = result;
  const used = records.filter(({ name }) => !kept.includes(name));
  const unused = used.flatMap(({ source, document }) =>
    policyWarnings(document).map((warning) => `${source}: ${warning}`),
  );
  const staying = busy.map(
    (id) =>
      `replica ${id} runs prompts of another pool and stays there; start a gateway again when they are done`,
  );
  return [...keptWarnings(kept, records), ...staying, ...unused];
}

function keptWarnings(kept: readonly string[], records: readonly PolicyRecord[]): string[] {
  return kept.map((name) => {
    const source = records.find((record) => record.name === name)?.source;
    return (
      `policy ${name} was changed over HTTP and stays as it is there; ${source} is not applied. ` +
      `To give it back to the file: DELETE /v1/policies/${name}, then start a gateway`
    );
  });
}

/** A values file as the cluster keeps it, `auto` as the pools of these models. @throws PolicyError */
export function policyRecord(
  source: string,
  document: unknown,
  models: Config['models'],
): PolicyRecord {
  const policy = parsePolicy(document);
  const { name, version, structure } = policy;
  type Limited = [string, PolicyRecord['limits'][string]];
  const limits = Object.entries(limitsOf(policy)).map(
    ([key, limit]): Limited => [key, limit === 'auto' ? poolsBehind(policy, models) : limit],
  );
  return { name, version, source, document, structure, limits: Object.fromEntries(limits) };
}

/** What `auto` stands for. @throws PolicyError where the policy applies to no model's prompts */
function poolsBehind(policy: Policy, models: Config['models']): { readonly auto: string[] } {
  const points = [...new Set(policy.selectors.map(({ controlPoint }) => controlPoint))];
  const pools = Object.values(models)
    .filter(({ controlPoint }) => points.includes(controlPoint))
    .map(({ pool }) => pool);
  if (pools.length === 0) {
    const at = shown(points.join(', '));
    const reason = `is \`auto\`, but no model of this gateway is scheduled at ${at}: give a number`;
    throw new PolicyError([{ path: slotsPath(policy), reason }]);
  }
  return { auto: [...new Set(pools)].toSorted() };
}

/**
 * Values files as the cluster keeps them, and every problem of those that are not valid. `models` is
 * undefined where the config has problems of its own: then nothing is said of `auto`, and there are
 * no records.
 */
export function readPolicies(
  sources: Config['policies'],
  models: Config['models'] | undefined,
): {
  readonly records: readonly PolicyRecord[];
  readonly problems: readonly Problem[];
} {
  const problems: Problem[] = [];
  const records = sources.flatMap(({ source, document }): PolicyRecord[] => {
    try {
      if (models !== undefined) return [policyRecord(source, document, models)];
      parsePolicy(document);
    } catch (error) {
      if (!(error instanceof PolicyError)) throw error;
      for (const { path, reason } of error.problems) {
        problems.push({ path: `${source}: ${path || 'the document'}`, reason });
      }
    }
    return [];
  });
  return { records, problems };
}
