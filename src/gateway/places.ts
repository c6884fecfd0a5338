import type { Admission, Place } from '../admission/index.ts';

/** How long questions are collected, ms: a client hears its place every few seconds. */
const collectMs = 100;

/** Where requests wait, asked for many clients at once. */
export class Places {
  readonly #admission: Pick<Admission, 'inspectPlaces'>;
  #asked = new Map<string, PromiseWithResolvers<Place | undefined>>();

  constructor(admission: Pick<Admission, 'inspectPlaces'>) {
    this.#admission = admission;
  }

  /** Undefined when it does not wait, or Redis does not answer. */
  ask(id: string): Promise<Place | undefined> {
    if (this.#asked.size === 0) setTimeout(() => void this.#answer(), collectMs);
    const asked = this.#asked.get(id) ?? Promise.withResolvers<Place | undefined>();
    this.#asked.set(id, asked);
    return asked.promise;
  }

  async #answer(): Promise<void> {
    const asked = this.#asked;
    this.#asked = new Map();
    const places = await this.#admission.inspectPlaces([...asked.keys()]).catch(() => []);
    for (const place of places) asked.get(place.id)?.resolve(place);
    for (const { resolve } of asked.values()) resolve(undefined);
  }
}
