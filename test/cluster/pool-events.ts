/**
 * Random events of a pool under traffic, by real gateways and workers: replicas join, leave, fail, drain
 * and slow down. What must hold is counted at the replicas and at the clients.
 */

import { expect, onTestFinished } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { randomFrom } from '../../src/simulator/text.ts';
import { chat, eventually, newCluster } from './world.ts';

const clients = 12;

interface Member {
  readonly id: string;
  readonly simulator: Simulator;
  readonly takes: number;
  /** Prompts that it had seen when it was told to drain, and those that were on their way. */
  drained?: { readonly started: number; readonly inFlight: number } | undefined;
}

/** `seed` says what happens to whom; when it does is up to the machine. */
export async function runPoolEvents(events: number, seed: number): Promise<void> {
  const random = randomFrom(seed);
  const pick = <Item>(list: readonly Item[]): Item => {
    const found = list[Math.floor(random() * list.length)];
    if (found === undefined) throw new Error('nothing to pick from');
    return found;
  };
  const cluster = await newCluster({
    maxConcurrency: 'auto',
    // A prompt may meet one failing replica after the other here.
    config: { pools: { mistral: {} }, attempts: 20, timeouts: { replica_down: '50ms' } },
  });
  const gateways = [await cluster.gateway('g1'), await cluster.gateway('g2')];
  await cluster.worker('w1');
  await cluster.worker('w2');
  const members: Member[] = [];
  for (const takes of [1, 2, 3, 4, 2]) {
    const simulator = await startSimulator({ speed: 2000, slots: takes });
    onTestFinished(() => simulator.stop());
    members.push({ id: `r${members.length}`, simulator, takes });
  }
  // One that is always there, so that there is progress.
  const [rock, ...others] = members;
  if (!rock) throw new Error('there is a rock');

  const call = async (method: string, path: string, body?: object) => {
    const { url } = pick(gateways);
    const response = await fetch(url + path, {
      method,
      ...(body && { body: JSON.stringify(body) }),
    });
    return { status: response.status, view: (await response.json()) as { in_flight: number } };
  };
  const join = ({ id, simulator: { url }, takes }: Member) =>
    call('PUT', `/v1/replicas/${id}`, { pool: 'mistral', url, max_inflight: takes });
  /** What drains gets nothing but what was on its way. */
  const checkDrained = (member: Member) => {
    const { drained, simulator, id } = member;
    if (!drained) return;
    const more = simulator.state().started - drained.started;
    expect(more, `prompts that ${id} got while it drained`).toBeLessThanOrEqual(drained.inFlight);
  };
  const happen: Readonly<Record<string, (member: Member) => Promise<unknown>>> = {
    join,
    leave: async (member) => {
      checkDrained(member);
      member.drained = undefined;
      await call('DELETE', `/v1/replicas/${member.id}`);
    },
    refuse: ({ simulator }) => simulator.setFault({ mode: 'refuse' }),
    unavailable: ({ simulator }) => simulator.setFault({ mode: 'unavailable' }),
    cut: ({ simulator }) => simulator.setFault({ mode: 'cut', after_tokens: 0 }),
    slow: ({ simulator }) => simulator.setFault({ mode: 'slow', factor: 8 }),
    heal: ({ simulator }) => simulator.setFault({ mode: 'none' }),
    drain: async (member) => {
      const deadline_ms = Math.floor(random() * 40);
      const { status, view } = await call('POST', `/v1/replicas/${member.id}/drain`, {
        deadline_ms,
      });
      const { started } = member.simulator.state();
      if (status === 202) member.drained ??= { started, inFlight: view.in_flight };
    },
    ready: async (member) => {
      checkDrained(member);
      member.drained = undefined;
      await call('POST', `/v1/replicas/${member.id}/ready`);
    },
  };
  // Half of what happens is for the better.
  const names = [...Object.keys(happen), 'join', 'heal', 'ready', 'heal'];

  await join(rock);
  const statuses = new Map<number, number>();
  let answered = 0;
  let onAnswer = () => {};
  let isOver = false;
  const client = async (name: number) => {
    while (!isOver) {
      const { status } = await chat(pick(gateways).url, `user_id=u${name}`, `of ${name}`);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      answered += 1;
      onAnswer();
    }
  };
  const traffic = Promise.all(Array.from({ length: clients }, (_, name) => client(name)));
  const more = () =>
    new Promise<void>((resolve) => {
      onAnswer = resolve;
    });
  for (let count = 0; count < events; count++) {
    const name = pick(names);
    await Promise.all([more(), happen[name]?.(pick(others))]);
  }
  isOver = true;
  await traffic;

  expect(Object.fromEntries(statuses)).toEqual({ 200: answered });
  for (const { id, takes, simulator } of members) {
    const most = simulator.state().in_flight_max;
    expect(most, `the most that ${id} had at a time`).toBeLessThanOrEqual(takes);
  }
  expect(await cluster.live()).toEqual([]);
  expect(await cluster.inFlight()).toEqual({});
  // All well again, they take what they took before.
  for (const member of others) {
    await member.simulator.setFault({ mode: 'none' });
    await join(member);
    await happen.ready?.(member);
  }
  const whole = members.reduce((sum, { takes }) => sum + takes, 0);
  const isWhole = async () => {
    // What rests is tried with a prompt.
    await Promise.all(members.map(() => chat(pick(gateways).url, 'user_id=u', 'after it all')));
    const { limits } = await limitsOf();
    return limits === whole;
  };
  await eventually('the pool is whole again', isWhole, 70_000);

  async function limitsOf() {
    const limits = await cluster.redis.hget(`sluice:{${cluster.domain}}:limits`, 'pool:mistral');
    return { limits: Number(limits) };
  }
}
