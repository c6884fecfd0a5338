/**
 * What more processes bring: submit + finish pairs of 1, 2 and 4 gateways on one Redis, then of
 * three gateways whose domains are spread over the three nodes of a Redis Cluster, beside the same
 * three on one Redis. A domain is one hash tag, so a gateway connects to the node that owns it.
 */

import { ratios } from '../stats.ts';
import { Child } from '../support/children.ts';
import { ownerOf, type RedisCluster, startCluster } from '../support/cluster.ts';
import { shortRecordsMs } from '../support/engine.ts';
import type { Context, Measure, Part } from '../types.ts';

const lanes = 50;
const nodes = 3;

/** Where each of the processes works. */
interface Setting {
  readonly name: string;
  readonly places: readonly { url: string; domain: string }[];
}

export const gateways: Part = {
  name: 'gateways',
  about: 'pairs a second of 1, 2 and 4 processes, and of three on a Redis Cluster',
  async run(context) {
    const { redis, rounds, progress } = context;
    const cluster = await startCluster(redis.kind, nodes);
    const children = Array.from({ length: 4 }, () => new Child('gateway'));
    try {
      const settings = [
        ...[1, 2, 4].map((count) => onOne(redis.url, count, 'one')),
        onOne(redis.url, nodes, 'own'),
        await onCluster(cluster),
      ];
      const measured = settings.map(() => [] as number[]);
      for (let round = 0; round < rounds; round++) {
        for (const [index, setting] of settings.entries()) {
          await redis.admin.flushall();
          await Promise.all(cluster.nodes.map(({ admin }) => admin.flushall()));
          const rate = await measure(context, children, setting);
          progress(`round ${round + 1}, ${setting.name}: ${rate.toFixed(0)} pairs/s`);
          measured[index]?.push(rate);
        }
      }
      return report(settings, measured);
    } finally {
      for (const child of children) await child.stop();
      await cluster.stop();
    }
  },
};

function onOne(url: string, count: number, domains: 'one' | 'own'): Setting {
  const processes = count === 1 ? '1 process' : `${count} processes`;
  const name = `${processes}, ${domains === 'one' ? 'one domain' : 'a domain each'}, one Redis`;
  const places = Array.from({ length: count }, (_, place) => ({
    url,
    domain: domains === 'one' ? 'gateways' : `gateways${place}`,
  }));
  return { name, places };
}

/** One domain for each node. */
async function onCluster(cluster: RedisCluster): Promise<Setting> {
  const domains = new Map<string, string>();
  for (let number = 0; domains.size < nodes; number++) {
    const domain = `spread${number}`;
    const { url } = await ownerOf(cluster, `{${domain}}`);
    if (!domains.has(url)) domains.set(url, domain);
  }
  const places = [...domains].map(([url, domain]) => ({ url, domain }));
  return { name: `${nodes} processes, a domain each, Redis Cluster of ${nodes}`, places };
}

async function measure(
  { quick }: Context,
  children: readonly Child[],
  { places }: Setting,
): Promise<number> {
  const working = places.map((place, index) => ({ ...place, child: children[index] }));
  for (const { url, domain, child } of working) {
    // Whoever comes later to the same domain sets the same limits again.
    const limits = { all: lanes * working.length, 'all.user': 4 };
    const id = `g${children.indexOf(child as Child)}`;
    await child?.ask('open', { url, domain, id, limits, recordsMs: shortRecordsMs });
  }
  const options = { lanes, warmMs: quick ? 200 : 1_200, measureMs: quick ? 300 : 3_000 };
  const rates = await Promise.all(
    working.map(({ child }) => child?.ask<number>('pairs', options) ?? 0),
  );
  for (const { child } of working) await child?.ask('close');
  return rates.reduce((sum, rate) => sum + rate, 0);
}

function report(settings: readonly Setting[], measured: readonly number[][]): Measure[] {
  const one = measured[0] ?? [];
  return settings.flatMap(({ name }, index): Measure[] => {
    const values = measured[index] ?? [];
    const rate: Measure = { name, unit: 'pairs/s', values, summary: 'median' };
    if (index === 0) return [rate];
    const over = ratios(values, one);
    return [rate, { name: `${name}, over 1 process`, unit: 'x', values: over, summary: 'median' }];
  });
}
