/** A thousand things that happen to a pool under traffic: see test/cluster/pool-events.ts. */

import { test } from 'vitest';
import { runPoolEvents } from '../cluster/pool-events.ts';

const seed = Number(process.env.SLUICE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));

test(
  `a thousand events of a pool under traffic (seed ${seed})`,
  () => runPoolEvents(1_000, seed),
  240_000,
);
