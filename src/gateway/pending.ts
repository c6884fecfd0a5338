type Settled<Value> =
  | { readonly status: 'fulfilled'; readonly value: Value }
  | { readonly status: 'rejected'; readonly reason: unknown };

/**
 * A promise that is waited for again and again, a while each time. It is listened to once: a race for
 * each time would leave something behind at the promise, for as long as that takes.
 */
export class Pending<Value> {
  #settled: Settled<Value> | undefined;
  #wake: () => void = () => {};

  constructor(promise: Promise<Value>) {
    const settle = (settled: Settled<Value>) => {
      this.#settled = settled;
      this.#wake();
    };
    promise.then(
      (value) => settle({ status: 'fulfilled', value }),
      (reason: unknown) => settle({ status: 'rejected', reason }),
    );
  }

  /** What it resolves to, or `late` when it has not after `ms`. Rejects as it does. */
  async within(ms: number): Promise<Value | 'late'> {
    if (!this.#settled) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, ms);
      this.#wake = resolve;
      await promise;
      clearTimeout(timer);
    }
    const settled = this.#settled;
    if (settled?.status === 'rejected') throw settled.reason;
    return settled ? settled.value : 'late';
  }
}
