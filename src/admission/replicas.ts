import type { Step } from './scripts.ts';
import { plain } from './text.ts';
import type { Probed, ProbeFields, ReplicaGiven, ReplicaRecord } from './types.ts';
import type { ReplicaView } from './views.ts';
import { type Pairs, readableReplicas } from './wire.ts';

/** Runs one step. */
export type RunStep = <Result>(
  step: Step,
  args: object,
  bytes?: readonly string[],
  moreKeys?: readonly string[],
) => Promise<Result>;

/** `in_use`: prompts of another pool, which it names, run there. `full`: there are as many as may be. */
export type PutResult =
  | { readonly status: 'new' | 'known' | 'full' }
  | { readonly status: 'in_use'; readonly pool: string };

type StoredPut =
  | { readonly status: 'done'; readonly is_new: boolean }
  | { readonly status: 'full' }
  | { readonly status: 'in_use'; readonly pool: string };

/** Changes of which replicas there are, and what is known of them: `lua/replicas.lua`. */
export class Replicas {
  readonly #run: RunStep;

  constructor(run: RunStep) {
    this.#run = run;
  }

  /** Joins, or changes; what is known of it stays while its address does. Says whether it is new. */
  async put(pool: string, replica: ReplicaGiven): Promise<PutResult> {
    const result = await this.#run<StoredPut>('replicas', { put: { pool, replica } });
    if (result.status === 'done') return { status: result.is_new ? 'new' : 'known' };
    return result;
  }

  /** One, with its probe and how many prompts run there. */
  async read(id: string): Promise<ReplicaView | undefined> {
    type Read = { replica?: string; probe?: string; in_flight: number };
    const { replica, probe, in_flight } = await this.#run<Read>('inspect', { what: 'replica', id });
    const [record] = readableReplicas(replica === undefined ? [] : [[id, replica]]);
    if (!record) return undefined;
    const read = probe === undefined ? undefined : (JSON.parse(probe) as ProbeFields);
    return { record, probe: read, inFlight: in_flight };
  }

  /** All that a name service has for a pool. */
  set(pool: string, replicas: readonly ReplicaGiven[]): Promise<unknown> {
    return this.#run('replicas', { set: { pool, source: 'dns', replicas } });
  }

  /** No new prompts; what still runs there after the deadline goes to others. */
  drain(id: string, deadlineMs?: number): Promise<'done' | 'unknown'> {
    return this.#change({ drain: { id, deadline_ms: deadlineMs } });
  }

  /** Takes prompts again. */
  ready(id: string): Promise<'done' | 'unknown'> {
    return this.#change({ ready: { id } });
  }

  /** All that there are, but those that are leaving. */
  async list(): Promise<ReplicaRecord[]> {
    type Listed = { replicas: Pairs };
    const { replicas } = await this.#run<Listed>('inspect', { what: 'replicas' });
    return readableReplicas(replicas).filter(({ state }) => state !== 'leaving');
  }

  /** No new prompts, and gone with its last one. */
  remove(id: string): Promise<'done' | 'unknown'> {
    return this.#change({ remove: { id } });
  }

  /** What came of a probe that this process was told to make. */
  async probed({ id, probe, result }: Probed): Promise<'done' | 'stale'> {
    const reason = result.ok ? undefined : plain(result.reason);
    const probed = { id, probe, ok: result.ok, reason };
    const { status } = await this.#run<{ status: 'done' | 'stale' }>('replicas', { probed });
    return status;
  }

  async #change(args: object): Promise<'done' | 'unknown'> {
    const { status } = await this.#run<{ status: 'done' | 'unknown' }>('replicas', args);
    return status;
  }
}
