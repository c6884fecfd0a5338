import type { Logger } from 'pino';
import type { Admission } from '../src/admission/index.ts';
import { probe, type ReplicaClient } from '../src/pool/index.ts';
import type { ProbeOrder } from '../src/stream/index.ts';

/**
 * Makes the probes that this worker is told to make: a step says which and when, and judges what came of
 * them. Which worker it is that probes a pool is decided there too, see lua/lib/roster.lua.
 */
export class Prober {
  readonly #admission: Pick<Admission, 'replicas'>;
  readonly #client: ReplicaClient;
  readonly #log: Logger;
  readonly #stopping = new AbortController();

  constructor(admission: Pick<Admission, 'replicas'>, client: ReplicaClient, log: Logger) {
    this.#admission = admission;
    this.#client = client;
    this.#log = log;
  }

  /** A probe that cannot be reported comes again when it is given up. */
  async run(id: string, order: ProbeOrder): Promise<void> {
    const { signal } = this.#stopping;
    const result = await probe(this.#client, order, order, signal);
    if (signal.aborted) return;
    if (!result.ok) this.#log.info({ replica: id, reason: result.reason }, 'probe failed');
    try {
      await this.#admission.replicas.probed({ id, probe: order.number, result });
    } catch (error) {
      this.#log.warn({ replica: id, err: error }, 'could not report a probe');
    }
  }

  stop(): void {
    this.#stopping.abort();
  }
}
