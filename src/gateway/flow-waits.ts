import type { Admission } from '../admission/index.ts';
import type { End, NodeEvent } from '../stream/index.ts';

/** What becomes of a flow that waits. */
export type News = 'admitted' | End;

/**
 * Flows of this gateway that wait to be admitted. As with answers an event only comes first, and the
 * record in Redis is what counts: those that should still wait are looked up after every gap and now
 * and then.
 */
export class FlowWaits {
  readonly #admission: Pick<Admission, 'inspectLive' | 'inspectRequest'>;
  readonly #onError: (error: unknown) => void;
  readonly #waiting = new Map<string, PromiseWithResolvers<News>>();
  #timer: NodeJS.Timeout | undefined;
  #checking = false;

  constructor(
    admission: Pick<Admission, 'inspectLive' | 'inspectRequest'>,
    onError: (error: unknown) => void,
  ) {
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

  /** Call it before the flow is submitted, and {@link forget} when nobody waits any more. */
  listen(id: string): Promise<News> {
    const news = Promise.withResolvers<News>();
    this.#waiting.set(id, news);
    return news.promise;
  }

  forget(id: string): void {
    this.#waiting.delete(id);
  }

  onEvent({ id, state }: NodeEvent): void {
    if (!this.#waiting.has(id)) return;
    if (state === 'admitted') this.#tell(id, 'admitted');
    // What it ended of stands in its record.
    else if (state !== undefined && state !== 'waiting') void this.#read([id]);
  }

  async check(): Promise<void> {
    if (this.#checking || this.#waiting.size === 0) return;
    this.#checking = true;
    try {
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
        // One that is not known is on its way, or its deadline here will tell.
        else if (ended) this.#tell(id, ended);
      }
    } catch (error) {
      this.#onError(error);
    }
  }

  #tell(id: string, news: News): void {
    this.#waiting.get(id)?.resolve(news);
  }
}
