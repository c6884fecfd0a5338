import type { Logger } from 'pino';
import type { Admission } from '../src/admission/index.ts';
import { type Config, replicaRecord } from '../src/config.ts';
import { type DnsResolver, resolveReplicas, systemResolver } from '../src/pool/index.ts';

interface DiscoveryOptions {
  readonly admission: Pick<Admission, 'replicas'>;
  readonly pools: Config['pools'];
  readonly log: Logger;
  /** Tests only. */
  readonly resolver?: DnsResolver;
}

/**
 * Replicas that DNS names. The worker that probes a pool looks its name up; where DNS does not answer,
 * the replicas stay that it named before.
 */
export class Discovery {
  readonly #options: DiscoveryOptions;
  readonly #resolver: DnsResolver;
  readonly #timers = new Map<string, NodeJS.Timeout>();

  constructor(options: DiscoveryOptions) {
    this.#options = options;
    this.#resolver = options.resolver ?? systemResolver();
  }

  /** The pools whose names are this worker's to look up, from now on; one that is new at once. */
  setPools(mine: readonly string[]): void {
    for (const [pool, timer] of this.#timers) {
      if (mine.includes(pool)) continue;
      clearInterval(timer);
      this.#timers.delete(pool);
    }
    for (const pool of mine) {
      const dns = this.#options.pools[pool]?.dns;
      if (!dns || this.#timers.has(pool)) continue;
      this.#timers.set(
        pool,
        setInterval(() => void this.#look(pool), dns.refreshMs),
      );
      void this.#look(pool);
    }
  }

  stop(): void {
    this.setPools([]);
  }

  async #look(pool: string): Promise<void> {
    const { admission, pools, log } = this.#options;
    const config = pools[pool];
    if (!config?.dns) return;
    const { dns } = config;
    try {
      const found = await resolveReplicas(pool, dns, this.#resolver);
      if ('failed' in found) {
        log.warn({ pool, name: dns.name, reason: found.failed }, 'DNS did not answer');
      } else if (this.#timers.has(pool)) {
        const replicas = found.replicas.map((one) => replicaRecord({ ...dns, ...one }, config));
        await admission.replicas.set(pool, replicas);
      }
    } catch (error) {
      log.warn({ pool, err: error }, 'could not look for replicas');
    }
  }
}
