/**
 * Does a long queue make a step slower? 64 slots that are always taken, a number of requests that
 * always wait, and a closed loop that ends one and submits one. Each case is measured beside the
 * same with 100 waiting; all of them stay in Redis, and the rounds take turns.
 */

import { ratios } from '../stats.ts';
import { measureParking } from '../support/parking.ts';
import {
  longestCallMs,
  measureNoise,
  readScriptTimes,
  resetScriptTimes,
} from '../support/script-times.ts';
import { type Shape, shapes, WaitingRoom } from '../support/waiting-room.ts';
import type { Context, Measure, Part } from '../types.ts';

/** The smaller crowd is the bigger one's in small: ten requests for each user. */
const crowds = { few: { waiting: 100, users: 10 }, many: { waiting: 100_000, users: 10_000 } };
const quickCrowd = { waiting: 5_000, users: 500 };

interface Case {
  readonly room: WaitingRoom;
  readonly pairsPerSecond: number[];
  readonly longestMs: number[];
  readonly meanMs: number[];
  /** Calls over the bound, in a thousand. */
  readonly tooLong: number[];
}

export const contended: Part = {
  name: 'contended',
  about: '100,000 waiting over 10,000 users at 64 slots, against 100 waiting',
  async run(context) {
    const { progress, rounds } = context;
    const measures: Measure[] = [];
    const cases: { few: Case; many: Case; shape: Shape }[] = [];
    const noise = { longestMs: [] as number[], tooLong: [] as number[] };
    for (const shape of shapes) {
      const few = await open(context, shape, crowds.few);
      const many = await open(context, shape, context.quick ? quickCrowd : crowds.many);
      const { longestMs } = await readScriptTimes(context.redis.admin);
      measures.push(
        longest(`${shape.name}: longest script call while the queue fills`, [longestMs]),
      );
      cases.push({ few, many, shape });
    }
    for (let round = 0; round < rounds; round++) {
      for (const { few, many, shape } of cases) {
        const small = await measure(context, few);
        const large = await measure(context, many);
        progress(
          `round ${round + 1}, ${shape.name}: ${small.toFixed(0)}, ${large.toFixed(0)} pairs/s`,
        );
      }
      const meanMs = cases[0]?.many.meanMs.at(-1) ?? 1;
      const alone = await measureNoise(context.redis.admin, meanMs, context.quick ? 300 : 3_000);
      noise.longestMs.push(alone.longestMs);
      noise.tooLong.push((1_000 * alone.overBound) / alone.calls);
    }
    const plain = cases[0]?.few.pairsPerSecond ?? [];
    for (const { few, many, shape } of cases) {
      measures.push(...report(shape.name, few, many, plain));
      await few.room.close();
      await many.room.close();
    }
    measures.push(
      {
        name: 'a script that only counts, as long as a step: longest call',
        unit: 'ms',
        values: noise.longestMs,
        summary: 'highest',
      },
      {
        name: `a script that only counts, as long as a step: calls over ${longestCallMs} ms, in 1,000`,
        unit: '',
        values: noise.tooLong,
        summary: 'median',
      },
    );
    measures.push(...(await measureParking(context)));
    return measures;
  },
};

async function open(
  context: Context,
  shape: Shape,
  crowd: { waiting: number; users: number },
): Promise<Case> {
  const { redis, progress } = context;
  const room = await WaitingRoom.open(redis.url, shape, crowd);
  await resetScriptTimes(redis.admin);
  progress(`${shape.name}: ${crowd.waiting} requests of ${crowd.users} users`);
  await room.fill();
  return { room, pairsPerSecond: [], longestMs: [], meanMs: [], tooLong: [] };
}

async function measure({ redis, quick }: Context, one: Case): Promise<number> {
  await resetScriptTimes(redis.admin);
  const rate = await one.room.pairsPerSecond(quick ? 100 : 1_000, quick ? 300 : 3_000);
  const times = await readScriptTimes(redis.admin);
  await one.room.settle();
  one.pairsPerSecond.push(rate);
  one.longestMs.push(times.longestMs);
  one.meanMs.push(times.meanMs);
  one.tooLong.push((1_000 * times.overBound) / times.calls);
  return rate;
}

function report(name: string, few: Case, many: Case, plain: readonly number[]): Measure[] {
  const median = (what: string, unit: string, values: readonly number[]): Measure => ({
    name: `${name}: ${what}`,
    unit,
    values,
    summary: 'median',
  });
  const slower = (what: string, base: readonly number[]): Measure => ({
    ...median(`times slower than ${what}`, 'x', ratios(base, many.pairsPerSecond)),
    target: { atMost: 1.5 },
  });
  return [
    median('100 waiting', 'pairs/s', few.pairsPerSecond),
    median('100,000 waiting', 'pairs/s', many.pairsPerSecond),
    slower('with 100 waiting', few.pairsPerSecond),
    ...(plain === few.pairsPerSecond ? [] : [slower('the first case with 100', plain)]),
    median('mean script call, 100 waiting', 'ms', few.meanMs),
    median('mean script call, 100,000 waiting', 'ms', many.meanMs),
    longest(`${name}: longest script call`, many.longestMs),
    median(`script calls over ${longestCallMs} ms, in 1,000`, '', many.tooLong),
  ];
}

function longest(name: string, values: readonly number[]): Measure {
  return { name, unit: 'ms', values, summary: 'highest', target: { atMost: longestCallMs } };
}
