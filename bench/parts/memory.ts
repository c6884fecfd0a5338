/** What one waiting request costs in Redis, without its body. */

import type { Redis } from 'ioredis';
import { Engine } from '../support/engine.ts';
import { inLanes } from '../support/loop.ts';
import { infoNumber } from '../support/redis.ts';
import type { Measure, Part } from '../types.ts';

const domain = 'memory';
const users = 10_000;

export const memory: Part = {
  name: 'memory',
  about: 'bytes of Redis for one waiting request without its body',
  async run({ redis: { url, admin }, quick, progress }) {
    const waiting = quick ? 20_000 : 100_000;
    const engine = await Engine.open({ url, domain, id: 'g1' });
    await engine.limit({ all: 1, 'all.user': 1 });
    const submit = (user: string) => engine.submit({ user, limiters: [`all.user=${user}`, 'all'] });
    // Holds the only slot. Every script is loaded by then.
    await submit('holder');
    const before = await usedMemory(admin);
    progress(`${waiting} requests of ${users} users with an owner and two labels`);
    await inLanes(waiting, 200, async (index) => {
      if ((await submit(`u${index % users}`)) !== 'waiting') throw new Error('it does not wait');
    });
    const bytes = ((await usedMemory(admin)) - before) / waiting;
    const keys = await bytesByKey(admin, waiting);
    await engine.close();
    const total: Measure = {
      name: 'one waiting request',
      unit: 'bytes',
      values: [bytes],
      summary: 'median',
      target: { atMost: 500 },
    };
    return [total, ...keys];
  },
};

/** Once it no longer changes: freed pages are given back, tables are no longer rehashed. */
async function usedMemory(redis: Redis): Promise<number> {
  for (let before = -1, attempt = 0; attempt < 50; attempt++) {
    await redis.call('MEMORY', 'PURGE');
    await new Promise((resolve) => setTimeout(resolve, 200));
    const now = await infoNumber(redis, 'memory', 'used_memory');
    if (Math.abs(now - before) < 50_000) return now;
    before = now;
  }
  throw new Error('used_memory does not come to rest');
}

/** Where the bytes are: each key's share, for what is more than a byte. */
async function bytesByKey(redis: Redis, waiting: number): Promise<Measure[]> {
  const measures: Measure[] = [];
  for (const key of (await redis.keys('*')).toSorted()) {
    const bytes = Number(await redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0)) / waiting;
    const name = `of which in ${key.split(':').at(-1)}`;
    if (bytes >= 1) measures.push({ name, unit: 'bytes', values: [bytes], summary: 'median' });
  }
  return measures;
}
