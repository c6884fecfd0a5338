import type { Redis } from 'ioredis';
import { cacheKeys } from './keys.ts';
import type { RunStep } from './replicas.ts';
import type { CacheChange } from './types.ts';

/** What callers keep for each other, in bounded memory: `lua/cache.lua`. */
export class Cache {
  readonly #run: RunStep;
  readonly #redis: Redis;
  readonly #keys: readonly [values: string, times: string];
  /** Redis' time, ms. */
  readonly #now: () => number;

  constructor(run: RunStep, redis: Redis, domain: string, now: () => number) {
    this.#run = run;
    this.#redis = redis;
    this.#keys = cacheKeys(domain);
    this.#now = now;
  }

  /** Keeps values, or forgets some; what is soonest to expire makes room. Says which are kept. */
  async change({ puts, drops, limitBytes }: CacheChange): Promise<readonly boolean[]> {
    const args = {
      puts: puts.map(({ name, ttlMs }) => [name, ttlMs]),
      drops,
      limit_bytes: limitBytes,
    };
    const values = puts.map(({ value }) => value);
    type Kept = { readonly kept: readonly boolean[] | Record<string, never> };
    const { kept } = await this.#run<Kept>('cache', args, values, this.#keys);
    return Array.isArray(kept) ? kept : [];
  }

  /** Values that are kept, in the order of their names. */
  async read(names: readonly string[]): Promise<(string | undefined)[]> {
    const stored = await this.#redis.hmget(this.#keys[0], ...names);
    const now = this.#now();
    return stored.map((text) => {
      const [keptUntil, value] = text?.split(' ') ?? [];
      return Number(keptUntil) > now ? value : undefined;
    });
  }
}
