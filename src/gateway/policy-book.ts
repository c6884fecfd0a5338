import type { Admission, PolicyRecord } from '../admission/index.ts';
import type { Config } from '../config.ts';
import type { Problem } from '../document.ts';
import { limitsOf, type Policy, PolicyError, parsePolicy } from '../policy/index.ts';

/**
 * The policies this gateway schedules with, and their version in Redis. A step refuses a schedule
 * of another version, the gateway reads again and schedules anew: gateways cannot disagree.
 */
export class PolicyBook {
  readonly #admission: Admission;
  #version = 0;
  #policies: readonly Policy[] = [];

  constructor(admission: Admission) {
    this.#admission = admission;
  }

  get version(): number {
    return this.#version;
  }

  get policies(): readonly Policy[] {
    return this.#policies;
  }

  /** Reads what the cluster has now. */
  async refresh(): Promise<void> {
    const { version, policies } = await this.#admission.inspectPolicies();
    this.#policies = policies
      .map((record) => parsePolicy(record.document))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
    this.#version = version;
  }

  /** The policies with a selector of this control point, in name order. */
  selecting(controlPoint: string): readonly Policy[] {
    return this.#policies.filter((policy) =>
      policy.selectors.some((selector) => selector.controlPoint === controlPoint),
    );
  }
}

/** Brings the config's policies and replicas to Redis. Throws PolicyError with all problems of all. */
export async function applyConfig(admission: Admission, config: Config): Promise<void> {
  const { records, problems } = readPolicies(config.policies);
  if (problems.length > 0) throw new PolicyError(problems);
  const replicas = Object.fromEntries(
    Object.entries(config.pools)
      .filter(([, pool]) => pool.replicas.length > 0)
      .map(([name, pool]) => [
        name,
        pool.replicas.map(({ id, url, protocol, model, maxInflight }) => ({
          id,
          url,
          protocol,
          ...(model === undefined ? {} : { model }),
          max_inflight: maxInflight,
        })),
      ]),
  );
  await admission.configure({ policies: records, replicas });
}

/** Values files as the cluster keeps them, and every problem of those that are not valid. */
export function readPolicies(sources: Config['policies']): {
  readonly records: readonly PolicyRecord[];
  readonly problems: readonly Problem[];
} {
  const problems: Problem[] = [];
  const records = sources.flatMap(({ source, document }): PolicyRecord[] => {
    try {
      const policy = parsePolicy(document);
      const { name, version, structure } = policy;
      return [{ name, version, source, document, structure, limits: limitsOf(policy) }];
    } catch (error) {
      if (!(error instanceof PolicyError)) throw error;
      for (const { path, reason } of error.problems) {
        problems.push({ path: `${source}: ${path || 'the document'}`, reason });
      }
      return [];
    }
  });
  return { records, problems };
}
