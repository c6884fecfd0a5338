/** A pool to which something happens all the time; a thousand times in `npm run test:long`. */

import { test } from 'vitest';
import { runPoolEvents } from './pool-events.ts';

const seed = Number(process.env.SLUICE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));

test(`300 events of a pool under traffic (seed ${seed})`, () => runPoolEvents(300, seed), 120_000);
