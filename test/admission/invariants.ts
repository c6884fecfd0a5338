/**
 * What must hold after every step, recounted from the raw keys by code that shares nothing with the
 * Lua: no counter that differs from a recount, nobody eligible who waits, one timer for each
 * request, and nothing left of those that ended.
 */

import type { Redis } from 'ioredis';
import { expect } from 'vitest';
import { domainKey } from '../../src/admission/keys.ts';

interface Stored {
  readonly queue: string;
  readonly cost: number;
  readonly sequence: number;
  readonly controlPoint: string;
  readonly bytes: number;
  readonly attempt: number;
  readonly replica: string;
  readonly admittedAt: number;
}

/** A record's lines, see lua/lib/requests.lua. */
export function parseRecord(text: string): Stored {
  const [submitted = '', times = '', rest = '{}'] = text.split('\n');
  const [queue = '', cost, , , , , , , controlPoint = ''] = submitted.split(' ');
  const [sequence, , admittedAt] = times.split(' ');
  const prompt = JSON.parse(rest) as { bytes?: number; attempt?: number; replica?: string };
  return {
    queue,
    cost: Number(cost),
    sequence: Number(sequence),
    controlPoint,
    bytes: prompt.bytes ?? 0,
    attempt: prompt.attempt ?? 0,
    replica: prompt.replica ?? '',
    admittedAt: Number(admittedAt),
  };
}

export async function checkInvariants(redis: Redis, domain: string): Promise<void> {
  const read = (name: string) => redis.hgetall(domainKey(domain, name));
  const set = (name: string) => redis.zrange(domainKey(domain, name), '0', '-1');
  const records = async (name: string) =>
    Object.entries(await read(name)).map(([id, text]) => [id, parseRecord(text)] as const);
  const waiting = await records('requests');
  const held = await records('held');
  const requests = new Map([...waiting, ...held]);
  expect(requests.size, 'each in one state').toBe(waiting.length + held.length);

  // Slots: the counters are the leases.
  const taken = new Map<string, number>();
  for (const [, request] of held) {
    const limiters = limitersOf(request.queue);
    if (request.replica !== '') limiters.push(`replica:${request.replica}`);
    for (const name of limiters) taken.set(name, (taken.get(name) ?? 0) + 1);
  }
  const inFlight = await read('in_flight');
  expect(numbers(inFlight), 'slots in flight').toEqual(Object.fromEntries(taken));

  // Queues: every waiting request stands in its FIFO, and nothing else does.
  const members = waiting.map(
    ([id, { queue, sequence, cost }]) =>
      `${queue} ${String(sequence).padStart(14, '0')} ${id} ${cost}`,
  );
  expect(await set('waiting'), 'the FIFO').toEqual(members.toSorted());

  const lengths = new Map<string, number>();
  for (const [, { controlPoint }] of waiting) {
    lengths.set(controlPoint, (lengths.get(controlPoint) ?? 0) + 1);
  }
  expect(numbers(await read('lengths')), 'queue lengths').toEqual(Object.fromEntries(lengths));

  // Nobody eligible waits, unless a bounded step left work that is due at once, or all are held up
  // while requests are keyed anew. A quota is closed while it is held for one who waits for it.
  const limits = await read('limits');
  const buckets = await read('buckets');
  const heldFor = new Map(
    Object.entries(buckets).flatMap(([name, text]) => {
      const [, , waitUntil, id = ''] = text.split(' ');
      return waitUntil === '0' ? [] : [[name, { id, at: Number(waitUntil) }] as const];
    }),
  );
  const isQuota = (name: string) => limits[name.split('=')[0] ?? name]?.startsWith('bucket');
  const free = (name: string) => {
    if (isQuota(name)) return heldFor.has(name) ? 0 : 1;
    const limitKey = name.split('=')[0] ?? name;
    const missing = limitKey.startsWith('pool:') ? 0 : Number.POSITIVE_INFINITY;
    return Number(limits[limitKey] ?? missing) - (taken.get(name) ?? 0);
  };
  const meta = await read('meta');
  const due = await redis.smembers(domainKey(domain, 'due'));
  if (due.length === 0 && meta.rekeying === undefined) {
    const eligible = waiting.filter(([, { queue }]) =>
      limitersOf(queue).every((name) => free(name) > 0),
    );
    expect(
      eligible.map(([id]) => id),
      'eligible requests that wait',
    ).toEqual([]);
  }
  for (const [name, { id }] of heldFor) {
    const waits = waiting.find(([waitingId]) => waitingId === id)?.[1];
    expect(waits && limitersOf(waits.queue), `who ${name} is held for waits for it`).toContain(
      name,
    );
  }

  // Standing: each queue at one gate, each key at a gate filed once, by its cheapest head there.
  const heads = new Map<string, Stored>();
  for (const [, request] of waiting) {
    const head = heads.get(request.queue);
    if (!head || request.sequence < head.sequence) heads.set(request.queue, request);
  }
  const standing = await set('standing');
  const queues = standing.filter((entry) => entry.startsWith('q '));
  const queuesStanding = queues.map((entry) => entry.split(' ')[4] ?? '');
  expect(queuesStanding.toSorted(), 'queues that stand').toEqual([...heads.keys()].toSorted());
  expect(Object.keys(await read('queues')).toSorted()).toEqual([...heads.keys()].toSorted());
  const cheapest = new Map<string, readonly [cost: number, sequence: number]>();
  for (const entry of queues) {
    const [, gate, key, sequence, queue = ''] = entry.split(' ');
    expect(limitersOf(queue).concat('-'), `gate of ${queue}`).toContain(gate);
    const head = heads.get(queue);
    expect(Number(sequence), `head of ${queue}`).toBe(head?.sequence);
    const at = `${gate} ${key}`;
    const [cost, oldest] = cheapest.get(at) ?? [Number.POSITIVE_INFINITY, 0];
    if (!head || head.cost > cost || (head.cost === cost && head.sequence > oldest)) continue;
    cheapest.set(at, [head.cost, head.sequence]);
  }
  const atGates = new Map<string, number>();
  for (const entry of queues) {
    const [, gate = ''] = entry.split(' ');
    atGates.set(gate, (atGates.get(gate) ?? 0) + 1);
  }
  expect(numbers(await read('gates')), 'queues at gates').toEqual(Object.fromEntries(atGates));
  const byCost = standing
    .filter((entry) => entry.startsWith('c '))
    .map((entry) => entry.split(' '));
  const expected = [...heads.values()].map(({ queue, cost }) => `${cost} ${queue}`);
  expect(byCost.map(([, , , cost, , queue]) => `${Number(cost)} ${queue}`).toSorted()).toEqual(
    expected.toSorted(),
  );
  const filed = standing
    .filter((entry) => entry.startsWith('k '))
    .map((entry) => entry.split(' '))
    .map(([, gate, , , sequence, queue = '']) => {
      const key = queue.split('/').slice(0, 3).join('/');
      return [`${gate} ${key}`, Number(sequence)] as const;
    });
  expect(filed.length, 'keys that stand').toBe(cheapest.size);
  expect(new Map(filed), 'keys that stand').toEqual(
    new Map([...cheapest].map(([at, [, sequence]]) => [at, sequence])),
  );

  // The tree counts what waits and what is held, at every level.
  const counts = new Map<string, [number, number]>();
  for (const [index, list] of [waiting, held].entries()) {
    for (const [, { queue }] of list) {
      const [policy = '', workload = '', key = ''] = queue.split('/');
      for (const path of ['.', policy, `${policy}/${workload}`, `${policy}/${workload}/${key}`]) {
        const count = counts.get(path) ?? [0, 0];
        count[index as 0 | 1] += 1;
        counts.set(path, count);
      }
    }
  }
  const nodes = { ...(await read('tree')), ...(await read('fair')) };
  const generations = new Map<string, number>();
  for (const [path, text] of Object.entries(await read('tree'))) {
    generations.set(path, Number(text.split(' ')[4]));
  }
  for (const [path, text] of Object.entries(nodes)) {
    const [start, , atNode, heldAtNode, generation] = text.split(' ').map(Number);
    const [policy, workload, key] = path.split('/');
    // What a workload that began anew has left behind, not yet overwritten.
    if (key !== undefined && generation !== generations.get(`${policy}/${workload}`)) continue;
    expect([atNode, heldAtNode], `counts of ${path}`).toEqual(counts.get(path) ?? [0, 0]);
    expect(start, `start of ${path}`).toBeGreaterThanOrEqual(0);
    counts.delete(path);
  }
  expect([...counts.keys()], 'nodes that are missing').toEqual([]);

  // One timer each; nothing of those that ended.
  const timers = (await set('timers')).filter((entry) => !entry.includes(' '));
  expect(timers.toSorted(), 'timers').toEqual([...requests.keys()].toSorted());
  for (const generation of ['ended', 'ended_before', 'jobs_ended', 'jobs_ended_before']) {
    for (const id of Object.keys(await read(generation))) {
      expect(requests.has(id), `${id} is live and ended`).toBe(false);
    }
  }
  const bytes = [...requests.values()].reduce((sum, one) => sum + one.bytes, 0);
  expect(Number(meta.body_bytes ?? 0), 'bytes of bodies').toBe(bytes);
  const bodies = Object.keys(await read('bodies')).toSorted();
  expect(bodies).toEqual(
    [...requests]
      .filter(([, r]) => r.bytes)
      .map(([id]) => id)
      .toSorted(),
  );
  const offered = new Set(held.map(([id, { attempt }]) => `${id} ${attempt}`));
  for (const entry of await set('outbox')) expect(offered, 'the outbox').toContain(entry);
}

function limitersOf(queue: string): string[] {
  const names = queue.split('/')[3] ?? '';
  return names === '' ? [] : names.split(',');
}

function numbers(hash: Record<string, string>): Record<string, number> {
  return Object.fromEntries(Object.entries(hash).map(([name, value]) => [name, Number(value)]));
}
