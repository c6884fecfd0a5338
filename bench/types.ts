/** What the parts of the benchmark are and what they hand back. */

import type { BenchRedis } from './support/redis.ts';

/** What a figure is held against. */
export type Target = { readonly atLeast: number } | { readonly atMost: number };

/** One line of the results: a figure for each round, and how they become one. */
export interface Measure {
  readonly name: string;
  readonly unit: string;
  /** One figure for each round, in order. */
  readonly values: readonly number[];
  /** A bound that must hold always is judged by its worst round, everything else by the median. */
  readonly summary: 'median' | 'highest';
  readonly target?: Target | undefined;
}

/** What a part is given. */
export interface Context {
  /** A server of its own, empty, stopped after the part. */
  readonly redis: BenchRedis;
  /** A smoke run: everything is run, nothing is worth reading. */
  readonly quick: boolean;
  readonly rounds: number;
  /** One line for whoever waits. */
  progress(text: string): void;
}

export interface Part {
  readonly name: string;
  /** One line for the help and the table. */
  readonly about: string;
  run(context: Context): Promise<Measure[]>;
}
