/** The properties of order-bounds.test.ts can fail: each broken engine is caught by its scenarios. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { testRedis } from '../../support/redis.ts';
import {
  type BrokenEngine,
  clockWithoutMax,
  lostWakeUp,
  patchOf,
  plainFifo,
  savedCredit,
  scoredAgain,
  startTagClock,
} from './broken-engines.ts';
import { blocking, crowding, play, type Scenario, sharing, undercutting } from './scenario.ts';
import { Unfair } from './share.ts';

/** Most are caught within five scenarios; so many leave nothing to chance. */
const numRuns = 50;

const controls: readonly (readonly [BrokenEngine, fc.Arbitrary<Scenario>])[] = [
  [plainFifo, sharing],
  [scoredAgain, sharing],
  [startTagClock, crowding],
  [clockWithoutMax, undercutting],
  [savedCredit, blocking],
  [lostWakeUp, blocking],
];

for (const [engine, scenarios] of controls) {
  test(`caught: ${engine.name}`, async () => {
    const server = await testRedis();
    const [redis, subscriber] = [server.connect(), server.connect()];
    try {
      const property = fc.asyncProperty(scenarios, (scenario) =>
        play(scenario, redis, subscriber, patchOf(engine)),
      );
      const { failed, errorInstance, seed } = await fc.check(property, {
        numRuns,
        endOnFailure: true,
      });
      expect(failed, `not caught with seed ${seed}`).toBe(true);
      if (!(errorInstance instanceof Unfair)) throw errorInstance;
      expect(engine.breaks, errorInstance.message).toContain(errorInstance.kind);
    } finally {
      await server.stop();
    }
  }, 60_000);
}

test('a patch that finds nothing to break says so', () => {
  const patch = patchOf({ ...plainFifo, patch: [['no such text', '']] });
  expect(() => patch('submit', 'local a = 1')).toThrow('finds nothing to break');
});
