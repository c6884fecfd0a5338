import type { Admission } from '../admission/index.ts';
import type { End, NodeEvent } from '../stream/index.ts';

/** What becomes of a flow that waits. */
export type News = 'admitted' | End;

interface Waiting {
  readonly news: PromiseWithResolvers<News>;
  /** Redis has said that it took the flow in. */
  accepted: boolean;
}

type Steps = Pick<Admission, 'inspectLive' | 'inspectRequest' | 'cancel'>;

/**
 * Flows of this gateway that wait to be admitted. As with answers an event only comes first, and the
 * record in Redis is what counts: those that should still wait are looked up after every gap and now
 * and then. So are those whose callers have left while Redis was away: they would be admitted for nobody.
 */
export class FlowWaits {
  readonly #admission: Steps;
  readonly #onError: (error: unknown) => void;
  readonly #waiting = new Map<string, Waiting>();
  /** Their callers are gone, and Redis could not be told. */
  readonly #left = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #checking = false;

  constructor(admission: Steps, onError: (error: unknown) => void) {
    this.#admission = admission;
    this.#onError = onError;
  }

  start(everyMs: number): void {
    this.#timer ??= setInterval(() => void this.check(), everyMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Call it before the flow is submitted, and {@link forget} when nobody waits any more. */
  listen(id: string): Promise<News> {
    const news = Promise.withResolvers<News>();
    this.#waiting.set(id, { news, accepted: false });
    return news.promise;
  }

  /** Redis took the flow in: from now on, one that it does not know is lost. */
  accepted(id: string): void {
    const waiting = this.#waiting.get(id);
    if (waiting) waiting.accepted = true;
  }

  forget(id: string): void {
    this.#waiting.delete(id);
  }

  /** Its caller is gone: it leaves the queue, or gives its slot back, as soon as Redis can be told. */
  async withdraw(id: string): Promise<void> {
    this.#left.add(id);
    try {
      await this.#admission.cancel(id, 'its caller does not wait for it');
      this.#left.delete(id);
    } catch (error) {
      this.#onError(error);
    }
  }

  onEvent({ id, state, code }: NodeEvent): void {
    if (!this.#waiting.has(id)) return;
    if (state === 'admitted') this.#tell(id, 'admitted');
    // Many may be late at once: there is no more to know of them.
    else if (code === 'queue_timeout') this.#tell(id, { ...late, state: state ?? late.state });
    // What it ended of stands in its record.
    else if (state !== undefined && state !== 'waiting') void this.#read([id]);
  }

  async check(): Promise<void> {
    if (this.#checking || this.#waiting.size + this.#left.size === 0) return;
    this.#checking = true;
    try {
      await Promise.all([...this.#left].map((id) => this.withdraw(id)));
      const ids = [...this.#waiting.keys()];
      const waiting = await this.#admission.inspectLive(ids, true);
      await this.#read(ids.filter((id) => !waiting.has(id)));
    } catch (error) {
      this.#onError(error);
    } finally {
      this.#checking = false;
    }
  }

  async #read(ids: readonly string[]): Promise<void> {
    try {
      for (const id of ids) {
        const { request, ended } = await this.#admission.inspectRequest(id);
        if (request?.state === 'admitted') this.#tell(id, 'admitted');
        else if (ended) this.#tell(id, ended);
        // Its submit is on the way, or Redis came back without it.
        else if (!request && this.#waiting.get(id)?.accepted) this.#tell(id, lost);
      }
    } catch (error) {
      this.#onError(error);
    }
  }

  #tell(id: string, news: News): void {
    this.#waiting.get(id)?.news.resolve(news);
  }
}

const late: End = {
  state: 'rejected',
  code: 'queue_timeout',
  message: 'waited longer than its time in the queue',
};

const lost: End = {
  state: 'lost',
  code: 'unavailable',
  message: 'Redis no longer knows the flow',
};
