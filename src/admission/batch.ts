/**
 * Requests that arrive together share one script call. What is added in one turn of the event loop
 * goes out at the turn's end, in the order in which it came, in calls of bounded size.
 */
export class Batch<Item, Result> {
  readonly #run: (items: readonly Item[]) => Promise<readonly Result[]>;
  readonly #limits: BatchLimits<Item>;
  #waiting: Entry<Item, Result>[] = [];

  constructor(
    run: (items: readonly Item[]) => Promise<readonly Result[]>,
    limits: BatchLimits<Item>,
  ) {
    this.#run = run;
    this.#limits = limits;
  }

  /** The item's own result; rejects with whatever its call failed with. */
  add(item: Item): Promise<Result> {
    // After the sockets of this turn were read: whatever they brought is in.
    if (this.#waiting.length === 0) setImmediate(() => this.#flush());
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    this.#waiting.push({ item, resolve, reject });
    return promise;
  }

  #flush(): void {
    const entries = this.#waiting;
    this.#waiting = [];
    const most = this.#limits.items();
    let from = 0;
    let bytes = 0;
    for (const [index, { item }] of entries.entries()) {
      const more = this.#limits.bytesOf?.(item) ?? 0;
      if (index - from >= most || (bytes + more > batchBytes && index > from)) {
        void this.#send(entries.slice(from, index));
        from = index;
        bytes = 0;
      }
      bytes += more;
    }
    void this.#send(entries.slice(from));
  }

  async #send(entries: readonly Entry<Item, Result>[]): Promise<void> {
    try {
      const results = await this.#run(entries.map(({ item }) => item));
      if (results.length !== entries.length) throw new Error('a step answered for other requests');
      for (const [index, { resolve }] of entries.entries()) resolve(results[index] as Result);
    } catch (error) {
      for (const { reject } of entries) reject(error);
    }
  }
}

/** Bytes of all items of one call; a larger item goes alone. */
const batchBytes = 1024 * 1024;

interface BatchLimits<Item> {
  /** Most items of one call: keeps a script call short. */
  readonly items: () => number;
  readonly bytesOf?: (item: Item) => number;
}

interface Entry<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}
