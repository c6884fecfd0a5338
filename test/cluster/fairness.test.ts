/**
 * The experiment that Sluice exists for, with real processes: two gateways, two workers, one Redis,
 * ten users of two tiers who send 250 prompts at once to a replica that may run two.
 */

import { expect, test } from 'vitest';
import { type Chat, chat, newCluster } from './world.ts';

const tiers = { paid: 5, 'open-source': 1 } as const;
type Tier = keyof typeof tiers;

test('250 prompts of two tiers at a concurrency of 2', async () => {
  const cluster = await newCluster({ maxConcurrency: 2, simulator: { speed: 500 } });
  const gateways = await Promise.all([cluster.gateway('g1'), cluster.gateway('g2')]);
  await Promise.all([cluster.worker('w1'), cluster.worker('w2')]);

  const chats: Promise<Chat & { tier: Tier }>[] = [];
  for (let prompt = 0; prompt < 25; prompt++) {
    for (let user = 0; user < 10; user++) {
      const tier: Tier = user < 5 ? 'paid' : 'open-source';
      const gateway = gateways[(prompt + user) % 2];
      const labels = `user_id=u${user},workload=${tier},priority=${tiers[tier]}`;
      const sent = chat(gateway?.url ?? '', labels, `user ${user} asks number ${prompt}`);
      chats.push(sent.then((result) => ({ ...result, tier })));
    }
  }
  const results = await Promise.all(chats);

  expect(results.filter(({ status }) => status !== 200)).toEqual([]);
  const state = cluster.simulator.state();
  expect(state.in_flight_max).toBeLessThanOrEqual(2);
  // The slots were used: with 250 waiting, two run nearly always.
  expect(state.in_flight_max).toBe(2);

  // Exactly once: the replica saw each request once, and completed it.
  const ids = state.log.map((entry) => entry.request_id);
  expect(new Set(ids).size).toBe(250);
  expect(ids.toSorted()).toEqual(results.map(({ id }) => id).toSorted());
  expect(state.completed).toBe(250);

  const meanWait = (tier: Tier) => {
    const waits = results.filter((one) => one.tier === tier).map(({ queuedMs }) => queuedMs);
    return waits.reduce((sum, wait) => sum + wait, 0) / waits.length;
  };
  // While both wait, five of six slots are the paid ones': they are through when an open-source
  // request has had one turn in six, so they wait about half as long.
  expect(meanWait('paid')).toBeLessThan(0.7 * meanWait('open-source'));
  const tierOf = new Map(results.map(({ id, tier }) => [id, tier]));
  const started = state.log.map((entry) => tierOf.get(entry.request_id ?? ''));
  expect(started.lastIndexOf('paid')).toBeLessThan(started.lastIndexOf('open-source'));

  expect(await cluster.inFlight()).toEqual({});
  expect(await cluster.live()).toEqual([]);
}, 90_000);
