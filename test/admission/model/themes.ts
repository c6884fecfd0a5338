/** What random histories are mostly about: each stresses a part of the engine, the last all of it. */

import type { Theme, Weights } from './ops.ts';

const slots: Weights = {
  submit: 9,
  begin: 0,
  finish: 7,
  cancel: 1,
  batch: 1,
  again: 1,
  pass: 0,
  members: 0,
  slots: 1,
  buckets: 0,
  layout: 0,
};

const tokens = [undefined, undefined, 1, 50, 700, 5_000];
const plain = { prompts: 0, rates: 0, quotas: false, tokens };
const costs = [1, 7, 100, 100, 150, 300, 1_000];

export const themes = {
  /** Several limits on slots at once, and every cost there can be. */
  slots: { ...plain, weights: slots, costs: [...costs, 10_000_000] },
  /** Shares of virtual time: equal costs, of which many turn out to be others. */
  shares: {
    ...plain,
    weights: { ...slots, submit: 8, finish: 8, cancel: 0, batch: 2, again: 0, slots: 0 },
    costs: [100],
    tokens: [undefined, 300, 1_000, 5_000],
  },
  /** Prompts: workers, replicas, leases, the clock. */
  prompts: {
    ...plain,
    weights: { ...slots, begin: 6, pass: 4, members: 1, again: 3 },
    prompts: 70,
    costs,
  },
  /** Rate limits and quotas, whose rules change. */
  buckets: {
    ...plain,
    weights: { ...slots, pass: 6, buckets: 1 },
    rates: 40,
    quotas: true,
    costs,
  },
  /** Policies whose structure changes, while requests wait and run. */
  changes: { ...plain, weights: { ...slots, pass: 2, layout: 1 }, quotas: true, costs },
  all: {
    weights: { ...slots, begin: 6, pass: 4, members: 1, again: 2, buckets: 1, layout: 1 },
    prompts: 50,
    rates: 30,
    quotas: true,
    costs,
    tokens,
  },
} satisfies Record<string, Theme>;
