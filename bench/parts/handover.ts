/**
 * From `finish` in one process to the waiter's resumption in another, through the step, the event
 * and its subscriber; beside a message that is only published and received. The two take turns
 * sample by sample, on one clock that both processes read.
 */

import { percentile, ratios } from '../stats.ts';
import { Child } from '../support/children.ts';
import type { Measure, Part } from '../types.ts';

const domain = 'handover';

export const handover: Part = {
  name: 'handover',
  about: 'finish in one process to the waiter resumed in another',
  async run({ redis: { url }, quick, rounds, progress }) {
    const [giver, taker] = [new Child('gateway'), new Child('gateway')];
    await giver.ask('open', { url, domain, id: 'giver', limits: { all: 1 } });
    await taker.ask('open', { url, domain, id: 'taker' });
    const samples = quick ? 50 : 1_000;
    const warm = quick ? 10 : 200;
    const series = {
      half: [] as number[],
      late: [] as number[],
      bareHalf: [] as number[],
      bareLate: [] as number[],
    };
    for (let round = 0; round < rounds; round++) {
      const handedMs: number[] = [];
      const bareMs: number[] = [];
      for (let sample = -warm; sample < samples; sample++) {
        const handed = await handOver(giver, taker);
        const bare = await publish(giver, taker);
        if (sample < 0) continue;
        handedMs.push(handed);
        bareMs.push(bare);
      }
      series.half.push(percentile(handedMs, 0.5));
      series.late.push(percentile(handedMs, 0.99));
      series.bareHalf.push(percentile(bareMs, 0.5));
      series.bareLate.push(percentile(bareMs, 0.99));
      const [half, late] = [series.half.at(-1), series.late.at(-1)];
      progress(`round ${round + 1}: p50 ${half?.toFixed(3)} ms, p99 ${late?.toFixed(3)} ms`);
    }
    await giver.stop();
    await taker.stop();
    return [
      line('p50', 'ms', series.half),
      { ...line('p99', 'ms', series.late), target: { atMost: 5 } },
      line('bare PUBLISH, p50', 'ms', series.bareHalf),
      line('bare PUBLISH, p99', 'ms', series.bareLate),
      {
        ...line('p50 over that of a bare PUBLISH', 'x', ratios(series.half, series.bareHalf)),
        target: { atMost: 2 },
      },
    ];
  },
};

async function handOver(giver: Child, taker: Child): Promise<number> {
  await giver.ask('hold');
  await taker.ask('wait');
  // Asked one after the other: no question of ours reaches the taker while it is measured.
  const releasedAt = await giver.ask<number>('release');
  const resumedAt = await taker.ask<number>('resumedAt');
  await taker.ask('release');
  return resumedAt - releasedAt;
}

async function publish(giver: Child, taker: Child): Promise<number> {
  await taker.ask('listen');
  const publishedAt = await giver.ask<number>('publish', { to: 'taker' });
  const heardAt = await taker.ask<number>('heardAt');
  return heardAt - publishedAt;
}

function line(name: string, unit: string, values: readonly number[]): Measure {
  return { name, unit, values, summary: 'median' };
}
