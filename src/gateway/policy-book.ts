import type { Admission, PolicyRecord } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { limitsOf, type Policy, parsePolicy } from '../policy/index.ts';

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

  /** The longest that a policy of the control point lets its requests wait, ms. */
  selecting(controlPoint: string): readonly Policy[] {
    return this.#policies.filter((policy) =>
      policy.selectors.some((selector) => selector.controlPoint === controlPoint),
    );
  }
}

/** Brings the config's policies and replicas to Redis. Throws PolicyError with every problem. */
export async function applyConfig(admission: Admission, config: Config): Promise<void> {
  const records: PolicyRecord[] = config.policies.map(({ source, document }) => {
    const policy = parsePolicy(document);
    const { name, version } = policy;
    return { name, version, source, document, limits: limitsOf(policy) };
  });
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
  const result = await admission.configure({ policies: records, replicas });
  if (result.status === 'unreadable') {
    throw new SluiceError(
      'unavailable',
      `the keys in Redis are of schema ${result.schema}, which this version cannot read`,
    );
  }
}
