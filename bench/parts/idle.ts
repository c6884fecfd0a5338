/**
 * How long slots stand empty while somebody waits for one: 16 slots, 100 ms of work, four gateways,
 * and a queue that is never empty, since 25 clients of each gateway ask again as soon as they have
 * been served. What counts as work is what its doer saw: the flow's caller, or the replica.
 */

import { Agent } from 'undici';
import type { Span } from '../children/gateway.ts';
import { Child } from '../support/children.ts';
import { inLanes } from '../support/loop.ts';
import { startPromptCluster } from '../support/prompt-cluster.ts';
import { ask } from '../support/prompts.ts';
import type { Context, Measure, Part } from '../types.ts';

const slots = 16;
const workMs = 100;
const gateways = 4;
/** Of each gateway. */
const clients = 25;

export const idle: Part = {
  name: 'idle',
  about: 'slot time that is idle while somebody waits',
  async run(context) {
    return [...(await flows(context)), ...(await prompts(context))];
  },
};

async function flows({ redis: { url }, quick, rounds, progress }: Context): Promise<Measure[]> {
  const children = Array.from({ length: gateways }, () => new Child('gateway'));
  const limits = { all: slots };
  for (const [index, child] of children.entries()) {
    await child.ask('open', { url, domain: 'flows', id: `g${index}`, limits });
  }
  const count = quick ? 40 : 400;
  const values: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const spans = await Promise.all(
      children.map((child) => child.ask<Span[]>('flows', { count, clients, workMs })),
    );
    values.push(idlePercent(spans.flat()));
    progress(`round ${round + 1}, flows: ${values.at(-1)?.toFixed(2)} % idle`);
  }
  for (const child of children) await child.stop();
  return [line('flows', values, 2)];
}

async function prompts({ redis, quick, rounds, progress }: Context): Promise<Measure[]> {
  progress(`starting ${gateways} gateways, 2 workers and 2 replicas`);
  await using first = new Child('replica');
  await using second = new Child('replica');
  const replicas = [first, second];
  const each = { slots: slots / replicas.length, workMs };
  const urls = await Promise.all(replicas.map((child) => child.ask<string>('start', each)));
  await using cluster = await startPromptCluster({
    redisUrl: redis.url,
    gateways,
    workers: 2,
    replicas: { protocol: 'ollama', urls },
    slots,
  });
  await using parts = new AsyncDisposableStack();
  const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0 });
  parts.defer(() => agent.close());
  const askFor = (count: number) =>
    inLanes(count, gateways * clients, (number) => {
      const target = { url: cluster.urls[number % gateways] ?? '' };
      return ask(agent, target, number, { text: `prompt ${number}` });
    });
  const spans = async () =>
    (await Promise.all(replicas.map((child) => child.ask<Span[]>('spans')))).flat();
  await askFor(gateways * clients);
  await spans();
  const values: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await askFor(gateways * (quick ? 40 : 400));
    values.push(idlePercent(await spans()));
    progress(`round ${round + 1}, prompts: ${values.at(-1)?.toFixed(2)} % idle`);
  }
  return [line('prompts, through BullMQ', values, 5)];
}

/**
 * The share of slot time in which nothing ran, from when all slots were first taken until the last
 * of those that waited began: the queue is not empty between.
 */
export function idlePercent(spans: readonly Span[]): number {
  const starts = spans.map(({ from }) => from).toSorted((left, right) => left - right);
  const [since, until] = [starts[slots - 1], starts.at(-1)];
  if (since === undefined || until === undefined) throw new Error('fewer spans than slots');
  let busyMs = 0;
  for (const { from, to } of spans) {
    busyMs += Math.max(0, Math.min(to, until) - Math.max(from, since));
  }
  return 100 * (1 - busyMs / (slots * (until - since)));
}

function line(name: string, values: readonly number[], atMost: number): Measure {
  const measure = { name: `${name}: idle slot time`, unit: '%', values, target: { atMost } };
  return { ...measure, summary: 'median' };
}
