import type { Admission } from '../admission/index.ts';
import type { Protocol } from '../protocols/index.ts';

/**
 * What the replicas of each pool speak, as this gateway knows it: read again now and then, and after its
 * own changes. Where it is late, a prompt is refused by the worker that meets the replica.
 */
export class ReplicaBook {
  readonly #admission: Admission;
  readonly #onError: (error: unknown) => void;
  #protocols: ReadonlyMap<string, ReadonlySet<Protocol>> = new Map();
  #timer: NodeJS.Timeout | undefined;

  constructor(admission: Admission, onError: (error: unknown) => void) {
    this.#admission = admission;
    this.#onError = onError;
  }

  start(everyMs: number): void {
    this.#timer ??= setInterval(() => void this.refresh().catch(this.#onError), everyMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async refresh(): Promise<void> {
    const protocols = new Map<string, Set<Protocol>>();
    for (const { pool, protocol } of await this.#admission.replicas.list()) {
      const known = protocols.get(pool) ?? new Set();
      // From configs and requests that were checked.
      protocols.set(pool, known.add(protocol as Protocol));
    }
    this.#protocols = protocols;
  }

  /** Of a pool's replicas. */
  protocolsOf(pool: string): ReadonlySet<Protocol> {
    return this.#protocols.get(pool) ?? new Set();
  }
}
