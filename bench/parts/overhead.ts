/**
 * What a gateway adds to a prompt whose replica takes no time: Sluice with one gateway and one
 * worker, and Portkey, which passes prompts on and schedules nothing, beside asking the replica
 * itself. All three are asked by the same clients, in turns. Every answer is read to its end and
 * held against what the replica says to that prompt.
 */

import type { Load, LoadOptions } from '../children/client.ts';
import { differences, ratios } from '../stats.ts';
import { Child } from '../support/children.ts';
import { startPortkey } from '../support/portkey.ts';
import { startPromptCluster } from '../support/prompt-cluster.ts';
import type { Target } from '../support/prompts.ts';
import type { Measure, Part } from '../types.ts';

const slots = 64;
const many = 32;

const names = ['direct', 'Sluice', 'Portkey'] as const;
type Name = (typeof names)[number];

export const overhead: Part = {
  name: 'overhead',
  about: 'what Sluice and Portkey add to a prompt that a replica answers at once',
  async run({ redis, quick, rounds, progress }) {
    await using replica = new Child('upstream');
    const url = await replica.ask<string>('start', { tokenMs: 1 });
    await using client = new Child('client');
    await using portkey = await startPortkey(url, progress);
    await using cluster = await startPromptCluster({
      redisUrl: redis.url,
      gateways: 1,
      workers: 1,
      replicas: { protocol: 'openai', urls: [url] },
      slots,
    });
    const targets: Record<Name, Target> = {
      direct: { url },
      Sluice: { url: cluster.urls[0] ?? '' },
      Portkey: portkey.ready,
    };
    const load = (name: Name, clients: number) => {
      const options = { warmMs: quick ? 100 : 500, measureMs: quick ? 500 : 3_000 };
      const asked: LoadOptions = { ...options, clients, target: targets[name] };
      return client.ask<Load>('load', asked);
    };
    // Compiles what is hot, which 500 ms do not.
    for (const name of names) await load(name, many);
    const measured = new Map<string, Load[]>();
    for (let round = 0; round < rounds; round++) {
      for (const clients of [1, many]) {
        for (const name of names) {
          const figures = await load(name, clients);
          const key = keyOf(name, clients);
          measured.set(key, [...(measured.get(key) ?? []), figures]);
          const { perSecond, halfMs } = figures;
          const told = `p50 ${halfMs.toFixed(2)} ms, ${perSecond.toFixed(0)} prompts/s`;
          progress(`round ${round + 1}, ${key}: ${told}`);
        }
      }
    }
    return report((name, clients) => measured.get(keyOf(name, clients)) ?? []);
  },
};

function keyOf(name: Name, clients: number): string {
  return `${clients === 1 ? '1 client' : `${clients} clients`}: ${name}`;
}

function report(loads: (name: Name, clients: number) => Load[]): Measure[] {
  const figures = (name: Name, clients: number, figure: keyof Load) =>
    loads(name, clients).map((load) => load[figure]);
  const half = (name: Name) => figures(name, 1, 'halfMs');
  const rate = (name: Name) => figures(name, many, 'perSecond');
  const added = (name: Name) =>
    line(`${keyOf(name, 1)}, added to direct, p50`, 'ms', differences(half(name), half('direct')));
  return [
    line(`${keyOf('direct', 1)}, p50`, 'ms', half('direct')),
    { ...added('Sluice'), target: { atMost: 3 } },
    added('Portkey'),
    ...names.map((name) => line(keyOf(name, many), 'prompts/s', rate(name))),
    {
      ...line(
        `${keyOf('Sluice', many)} over Portkey`,
        'x',
        ratios(rate('Sluice'), rate('Portkey')),
      ),
      target: { atLeast: 1.5 },
    },
    ...names.map((name) => line(`${keyOf(name, many)}, p99`, 'ms', figures(name, many, 'lateMs'))),
  ];
}

function line(name: string, unit: string, values: readonly number[]): Measure {
  return { name, unit, values, summary: 'median' };
}
