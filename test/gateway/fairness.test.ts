/** How far apart workloads have been served: computed from the engine's tags, told while somebody listens. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Admission, DomainView } from '../../src/admission/index.ts';
import { type ClusterSample, clusterSampled } from '../../src/diagnostics.ts';
import { fairnessGaps, LargestCosts } from '../../src/gateway/fairness.ts';
import { PolicyBook } from '../../src/gateway/policy-book.ts';
import { Sampler } from '../../src/gateway/sampler.ts';
import { applied, cancelJob, slotValues, submitJob } from './policies.ts';
import { configOf, newWorld } from './world.ts';

type Node = DomainView['nodes'][number];

/** A node that waits, with its start in tokens. */
function node(path: string, start: number, more: Partial<Node> = {}): Node {
  const tags = { v: '0', start: String(start * 1_000) };
  return { path, waiting: 1, in_flight: 0, parked: false, ...tags, ...more };
}

const root = node('.', 0);

describe('the gap', () => {
  test('among the workloads of a policy, and among policies', () => {
    const costs = new LargestCosts();
    costs.saw('a/paid@5/u1/a', 1_000);
    costs.saw('a/paid@5/u2/a', 500);
    costs.saw('a/free@1/u3/a', 300);
    costs.saw('b%2Ec/default@1//b%2Ec', 50);
    const nodes = [
      root,
      node('a', 120),
      node('a/paid@5', 40),
      node('a/free@1', 290.5),
      node('b%2Ec', 100),
      node('b%2Ec/default@1', 0),
    ];
    expect(fairnessGaps(nodes, costs)).toEqual([
      { policy: '(all)', gap: 20, bound: 1_050 },
      { policy: 'a', gap: 250.5, bound: 500 },
      { policy: 'b.c', gap: 0, bound: 0 },
    ]);
  });

  test('leaves out who does not wait, and who could not run', () => {
    const nodes = [
      root,
      node('a', 0),
      node('a/x@1', 10),
      node('a/y@1', 500, { waiting: 0 }),
      node('a/z@1', 900, { parked: true }),
    ];
    const costs = new LargestCosts();
    expect(fairnessGaps(nodes, costs)[1]).toEqual({ policy: 'a', gap: 0, bound: 0 });
    costs.saw('a/y@1/u/a', 7);
    const both = fairnessGaps([...nodes, node('a/w@2', 11)], costs)[1];
    // Workloads that this gateway has not seen are taken to cost what the policy's others do.
    expect(both).toEqual({ policy: 'a', gap: 1, bound: 7 + 7 / 2 });
  });

  test('costs are remembered for a bounded number of workloads', () => {
    const costs = new LargestCosts();
    for (let index = 0; index < 200; index++) costs.saw(`p/w${index}@1/u/p`, 1_000 - index);
    expect(costs.of('p/w199@1')).toBe(801);
    // Forgotten, so what the others cost counts: w72 is the oldest that is known.
    expect(costs.of('p/w0@1')).toBe(928);
    expect(costs.of('other')).toBe(0);
  });
});

function listen(): ClusterSample[] {
  const samples: ClusterSample[] = [];
  const listener = (message: unknown) => {
    samples.push(message as ClusterSample);
  };
  subscribe(clusterSampled.name, listener);
  onTestFinished(() => {
    unsubscribe(clusterSampled.name, listener);
  });
  return samples;
}

test('a gateway tells gap, bound, waiting and slots as the engine has them', async () => {
  const samples = listen();
  const world = await newWorld({ max: 1, sampleMs: 20 });
  await world.simulator.setFault({ mode: 'hang' });
  const paid = { workload: 'paid', priority: '2', tokens: '100' };
  const free = { workload: 'free', priority: '1', tokens: '300' };
  const ids = [await submitJob(world, paid), await submitJob(world, paid)];
  ids.push(await submitJob(world, free), await submitJob(world, paid));
  ids.push(await submitJob(world, free, { controlPoint: 'named-by-a-caller' }));
  // Admits the second of the paid: it has then had 50 tokens for its weight more than the free.
  await applied(world.url, slotValues({ max: 2 }));
  const seen = samples.length;
  await expect.poll(() => samples.length, { interval: 10 }).toBeGreaterThan(seen + 1);
  expect(samples.at(-1)).toEqual({
    fairness: expect.arrayContaining([
      { policy: 'mistral', gap: 50, bound: 100 / 2 + 300 },
      { policy: '(all)', gap: 0, bound: 0 },
    ]),
    waiting: [{ controlPoint: 'mistral-prompt', waiting: 2 }],
    slots: expect.arrayContaining([
      { limiter: 'mistral', inFlight: 2, limit: 2 },
      { limiter: `pool:${world.config.domain}`, inFlight: 3, limit: 8 },
    ]),
    alerters: [],
  });
  for (const id of ids.toReversed()) await cancelJob(world, id);
  await world.idle();
});

test('names that callers choose are not told', async () => {
  const samples = listen();
  const world = await newWorld({ max: 1, worker: false, sampleMs: 20 });
  for (const controlPoint of ['secret-1', 'secret/2']) await submitJob(world, {}, { controlPoint });
  await expect
    .poll(() => samples.at(-1)?.waiting, { interval: 10 })
    .toEqual([
      { controlPoint: 'mistral-prompt', waiting: 0 },
      { controlPoint: 'other', waiting: 2 },
    ]);
  expect(JSON.stringify(samples)).not.toContain('secret');
});

test('while nobody listens nothing is read, and a read that fails is no more than logged', async () => {
  let reads = 0;
  const errors: unknown[] = [];
  const away = new Error('Redis is away');
  const admission = {
    inspectPolicies: async () => {
      reads += 1;
      throw away;
    },
  } as unknown as Admission;
  const sampler = new Sampler({
    admission,
    book: new PolicyBook(admission),
    config: await configOf({}),
    costs: new LargestCosts(),
    everyMs: 1_000,
    onError: (error) => errors.push(error),
  });
  await sampler.sample();
  expect(reads).toBe(0);
  const samples = listen();
  await sampler.sample();
  expect({ reads, errors, samples }).toEqual({ reads: 1, errors: [away], samples: [] });
});
