/**
 * 30,000 users wait with one request each. They stand behind the global limit until the limit for
 * each user falls to what they already have: then every one of their queues has to be parked behind
 * its own limiter. When that limit rises again, all have to be brought back. Work flows meanwhile.
 */

import type { Context, Measure } from '../types.ts';
import type { Limits } from './engine.ts';
import { longestCallMs, readScriptTimes, resetScriptTimes } from './script-times.ts';
import { type Shape, slots, WaitingRoom } from './waiting-room.ts';

const lanes = 16;
/** Over when no step has said for so long that something is left to do, ms. */
const quietMs = 1_000;
const mostMs = 120_000;
/** No record is forgotten meanwhile: that would be something to do, too. */
const recordsMs = 600_000;

const limitsWith = (userCap: number): Limits => ({
  all: slots,
  'one.user': 2 * slots,
  'capped.user': userCap,
});

const shape: Shape = {
  name: 'parking',
  limits: limitsWith(2),
  limitersOf: (user) => [user === 0 ? 'one.user=u0' : `capped.user=u${user}`, 'all'],
  othersHoldOne: true,
};

export async function measureParking({ redis, quick, progress }: Context): Promise<Measure[]> {
  const queues = quick ? 2_000 : 30_000;
  progress(`parking: ${queues} users, each with a request that runs and one that waits`);
  await redis.admin.flushall();
  const crowd = { waiting: queues + 1, users: queues + 1 };
  const room = await WaitingRoom.open(redis.url, shape, crowd, recordsMs);
  await room.fill();
  await room.add(0, 2 * slots);
  const measures: Measure[] = [];
  for (const [what, userCap] of [
    ['parked', 1],
    ['brought back', 2],
  ] as const) {
    await resetScriptTimes(redis.admin);
    const { tookMs, turns } = await changeLimits(room, limitsWith(userCap));
    const { longestMs, meanMs, calls } = await readScriptTimes(redis.admin);
    progress(
      `${what} in ${tookMs.toFixed(0)} ms and ${calls} script calls of ${meanMs.toFixed(2)} ms, ${turns} pairs`,
    );
    const name = `30,000 queues ${what}`;
    measures.push(
      {
        name: `${name}: longest script call`,
        unit: 'ms',
        values: [longestMs],
        summary: 'highest',
        target: { atMost: longestCallMs },
      },
      { name: `${name}: until all were`, unit: 'ms', values: [tookMs], summary: 'median' },
    );
  }
  await room.close();
  return measures;
}

/** Changes them while pairs run, until the engine has nothing left to do at once. */
async function changeLimits(
  room: WaitingRoom,
  limits: Limits,
): Promise<{ tookMs: number; turns: number }> {
  const startedAt = performance.now();
  let turns = 0;
  const busyUntil = () => Math.max(startedAt, room.engine.busyAt);
  const isOver = () => {
    const now = performance.now();
    if (now - startedAt > mostMs) throw new Error(`not done within ${mostMs} ms`);
    return now - busyUntil() > quietMs;
  };
  const run = async () => {
    while (!isOver()) {
      await room.turn();
      turns += 1;
    }
  };
  await Promise.all([room.engine.limit(limits), ...Array.from({ length: lanes }, run)]);
  return { tookMs: busyUntil() - startedAt, turns };
}
