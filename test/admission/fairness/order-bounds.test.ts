/**
 * The order keeps docs/fairness.md: over random workloads, at both levels of the tree and for every
 * interval between admissions, measured from outside. fast-check prints the seed and the smallest
 * scenario that fails; put `{ seed, path }` beside numRuns to play it again.
 */

import fc from 'fast-check';
import { test } from 'vitest';
import { testRedis } from '../../support/redis.ts';
import { blocking, crowding, play, type Scenario, sharing, undercutting } from './scenario.ts';

const numRuns = Number(process.env.SLUICE_TEST_RUNS ?? 12);

async function holds(scenarios: fc.Arbitrary<Scenario>): Promise<void> {
  const server = await testRedis();
  const [redis, subscriber] = [server.connect(), server.connect()];
  try {
    await fc.assert(
      fc.asyncProperty(scenarios, (scenario) => play(scenario, redis, subscriber)),
      { numRuns },
    );
  } finally {
    await server.stop();
  }
}

test(
  'two that stay eligible differ in normalized service by one request each at most',
  () => holds(sharing),
  120_000,
);

test(
  'no head starves: what others get before it is bounded, with endless new keys too',
  () => holds(crowding),
  120_000,
);

test(
  'who is blocked for a time comes back without credit, and no free unit is lost',
  () => holds(blocking),
  120_000,
);

test(
  'virtual time never runs backwards: who joins starts behind the pack',
  () => holds(undercutting),
  120_000,
);
