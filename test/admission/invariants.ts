/**
 * What must hold after every step, recounted from the raw keys by code that shares nothing with the
 * Lua: no counter that differs from a recount, nobody eligible who waits, every request
 * found at its time, and nothing left of those that ended.
 */

import { isDeepStrictEqual } from 'node:util';
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
  /** Of one that waits, ms. */
  readonly deadline: number;
}

/** A record's lines, see lua/lib/requests.lua. */
export function parseRecord(text: string): Stored {
  const [submitted = '', times = '', rest = '{}'] = text.split('\n');
  const [queue = '', cost, timeoutMs, , , controlPoint = ''] = submitted.split(' ');
  const [sequence, createdAt, admittedAt] = times.split(' ');
  const prompt = JSON.parse(rest) as { bytes?: number; attempt?: number; replica?: string };
  return {
    queue,
    cost: Number(cost),
    sequence: Number(sequence),
    controlPoint,
    bytes: prompt.bytes ?? 0,
    attempt: prompt.attempt ?? 0,
    replica: prompt.replica ?? '',
    admittedAt: Number(admittedAt ?? Number.NaN),
    deadline: Number(createdAt) + Number(timeoutMs),
  };
}

const hashes = [
  ...['meta', 'requests', 'held', 'bodies', 'queues', 'gates', 'tree', 'fair', 'limits'],
  ...['in_flight', 'buckets', 'lengths', 'ended', 'ended_before', 'jobs_ended'],
  'jobs_ended_before',
];
const zsets = ['waiting', 'standing', 'timers', 'outbox'];

/** The raw keys of a domain at one time. */
export interface Snapshot {
  readonly hashes: ReadonlyMap<string, Record<string, string>>;
  readonly zsets: ReadonlyMap<string, readonly string[]>;
  readonly due: readonly string[];
}

export async function checkInvariants(redis: Redis, domain: string): Promise<void> {
  checkSnapshot(await readSnapshot(redis, domain));
}

/** Reads everything at once. */
export async function readSnapshot(redis: Redis, domain: string): Promise<Snapshot> {
  const [maps, lists, due] = await Promise.all([
    Promise.all(hashes.map((name) => redis.hgetall(domainKey(domain, name)))),
    Promise.all(zsets.map((name) => redis.zrange(domainKey(domain, name), '0', '-1'))),
    redis.smembers(domainKey(domain, 'due')),
  ]);
  return {
    hashes: new Map(hashes.map((name, index) => [name, maps[index] ?? {}])),
    zsets: new Map(zsets.map((name, index) => [name, lists[index] ?? []])),
    due,
  };
}

export function checkSnapshot({ hashes: maps, zsets: lists, due }: Snapshot): void {
  const read = (name: string) => maps.get(name) ?? {};
  const set = (name: string) => lists.get(name) ?? [];
  const records = (name: 'requests' | 'held') =>
    Object.entries(read(name)).map(([id, text]) => [id, parseRecord(text)] as const);
  const waiting = records('requests');
  const held = records('held');
  const requests = new Map([...waiting, ...held]);
  same(requests.size, waiting.length + held.length, 'each in one state');

  // Slots: the counters are the leases.
  const taken = new Map<string, number>();
  for (const [, request] of held) {
    const limiters = limitersOf(request.queue);
    if (request.replica !== '') limiters.push(`replica:${request.replica}`);
    for (const name of limiters) taken.set(name, (taken.get(name) ?? 0) + 1);
  }
  const inFlight = read('in_flight');
  same(numbers(inFlight), Object.fromEntries(taken), 'slots in flight');

  // Queues: every waiting request stands in its FIFO, and nothing else does.
  const lines = new Map(
    Object.entries(read('queues')).map(([queue, text]) => [queue, text.split(' ')[4]]),
  );
  same(new Set(lines.values()).size, lines.size, 'each queue has a number of its own');
  const members = waiting.map(
    ([id, { queue, sequence, cost }]) =>
      `${lines.get(queue)} ${String(sequence).padStart(14, '0')} ${id} ${cost}`,
  );
  same(set('waiting'), members.toSorted(), 'the FIFO');

  const lengths = new Map<string, number>();
  for (const [, { controlPoint }] of waiting) {
    lengths.set(controlPoint, (lengths.get(controlPoint) ?? 0) + 1);
  }
  same(numbers(read('lengths')), Object.fromEntries(lengths), 'queue lengths');

  // Nobody eligible waits, unless a bounded step left work that is due at once, or all are held up
  // while requests are keyed anew. A quota is closed while it is held for one who waits for it.
  const limits = read('limits');
  const buckets = read('buckets');
  const heldFor = new Map(
    Object.entries(buckets).flatMap(([name, text]) => {
      const [, , waitUntil, id = '', ...rule] = text.split(' ');
      // Held by a rule that is not in force any more is not held.
      const [, capacity, fill, interval, , , since] = (
        limits[name.split('=')[0] ?? name] ?? ''
      ).split(' ');
      const isOld = rule.join(' ') !== [capacity, fill, interval, since].join(' ');
      return waitUntil === '0' || isOld ? [] : [[name, { id, at: Number(waitUntil) }] as const];
    }),
  );
  const isQuota = (name: string) => limits[name.split('=')[0] ?? name]?.startsWith('bucket');
  const free = (name: string) => {
    if (isQuota(name)) return heldFor.has(name) ? 0 : 1;
    const limitKey = name.split('=')[0] ?? name;
    const missing = limitKey.startsWith('pool:') ? 0 : Number.POSITIVE_INFINITY;
    return Number(limits[limitKey] ?? missing) - (taken.get(name) ?? 0);
  };
  const meta = read('meta');
  if (due.length === 0 && meta.rekeying === undefined) {
    const eligible = waiting.filter(([, { queue }]) =>
      limitersOf(queue).every((name) => free(name) > 0),
    );
    const ids = eligible.map(([id]) => id);
    same(ids, [], 'eligible requests that wait');
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
  const standing = set('standing');
  const queues = standing.filter((entry) => entry.startsWith('q '));
  const queuesStanding = queues.map((entry) => queueOf(entry.split(' ')));
  same(queuesStanding.toSorted(), [...heads.keys()].toSorted(), 'queues that stand');
  same(Object.keys(read('queues')).toSorted(), [...heads.keys()].toSorted(), 'queues');
  const cheapest = new Map<string, readonly [cost: number, sequence: number]>();
  for (const entry of queues) {
    const words = entry.split(' ');
    const [, gate, key, sequence] = words;
    const queue = queueOf(words);
    same(
      limitersOf(queue)
        .concat('-')
        .includes(gate ?? ''),
      true,
      `${gate}, gate of ${queue}`,
    );
    const head = heads.get(queue);
    same(Number(sequence), head?.sequence, `head of ${queue}`);
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
  same(numbers(read('gates')), Object.fromEntries(atGates), 'queues at gates');
  const byCost = standing
    .filter((entry) => entry.startsWith('c '))
    .map((entry) => entry.split(' '));
  const expected = [...heads.values()].map(({ queue, cost }) => `${cost} ${queue}`);
  const costs = byCost.map((words) => `${Number(words[3])} ${queueOf(words)}`);
  same(costs.toSorted(), expected.toSorted(), 'cheapest heads');
  const filed = standing
    .filter((entry) => entry.startsWith('k '))
    .map((entry) => entry.split(' '))
    .map((words) => {
      const key = queueOf(words).split('/').slice(0, 3).join('/');
      return [`${words[1]} ${key}`, Number(words[4])] as const;
    });
  same(filed.length, cheapest.size, 'keys that stand');
  const keysAtGates = new Map([...cheapest].map(([at, [, sequence]]) => [at, sequence]));
  same(new Map(filed), keysAtGates, 'keys that stand');

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
  const queuesOfKeys = new Map<string, number>();
  for (const queue of heads.keys()) {
    const key = queue.split('/').slice(0, 3).join('/');
    queuesOfKeys.set(key, (queuesOfKeys.get(key) ?? 0) + 1);
  }
  for (const [key, text] of Object.entries(read('fair'))) {
    const queuesOfKey = queuesOfKeys.get(key);
    if (queuesOfKey !== undefined)
      same(Number(text.split(' ')[6]), queuesOfKey, `queues of ${key}`);
  }
  const tree = read('tree');
  const nodes = { ...tree, ...read('fair') };
  const generations = new Map<string, number>();
  for (const [path, text] of Object.entries(tree)) {
    generations.set(path, Number(text.split(' ')[4]));
  }
  for (const [path, text] of Object.entries(nodes)) {
    const [start, , atNode, heldAtNode, generation] = text.split(' ').map(Number);
    const [policy, workload, key] = path.split('/');
    // What a workload that began anew has left behind, not yet overwritten.
    if (key !== undefined && generation !== generations.get(`${policy}/${workload}`)) continue;
    same([atNode, heldAtNode], counts.get(path) ?? [0, 0], `counts of ${path}`);
    // Relative to the turns of virtual time, of which there are hardly ever any.
    const turns = Number((tree[workload === undefined ? '.' : (policy ?? '')] ?? '').split(' ')[6]);
    if (turns === 0) same(Number(start) >= 0, true, `start of ${path} is not below 0`);
    counts.delete(path);
  }
  same([...counts.keys()], [], 'nodes that are missing');

  // One timer each, but for those that wait behind one whose deadline is not later; nothing of those
  // that ended.
  const timers = new Set(set('timers').filter((entry) => !entry.includes(' ')));
  const strangers = [...timers].filter((id) => !requests.has(id));
  same(strangers, [], 'timers of requests that are gone');
  const before = new Map<string, number>();
  for (const [id, { queue, deadline }] of waiting.toSorted(bySequence)) {
    const relies = (before.get(queue) ?? Number.POSITIVE_INFINITY) <= deadline;
    same(timers.has(id) || relies, true, `${id} is found at its deadline`);
    before.set(queue, deadline);
  }
  const untimed = held.map(([id]) => id).filter((id) => !timers.has(id));
  same(untimed, [], 'leases without a timer');
  for (const generation of ['ended', 'ended_before', 'jobs_ended', 'jobs_ended_before']) {
    for (const id of Object.keys(read(generation))) {
      same(requests.has(id), false, `${id} is live and ended`);
    }
  }
  const bytes = [...requests.values()].reduce((sum, one) => sum + one.bytes, 0);
  same(Number(meta.body_bytes ?? 0), bytes, 'bytes of bodies');
  const bodies = Object.keys(read('bodies')).toSorted();
  const withBody = [...requests]
    .filter(([, r]) => r.bytes)
    .map(([id]) => id)
    .toSorted();
  same(bodies, withBody, 'bodies');
  const offered = new Set(held.map(([id, { attempt }]) => `${id} ${attempt}`));
  for (const entry of set('outbox')) same(offered.has(entry), true, `${entry} in the outbox`);
}

const bySequence = ([, a]: readonly [string, Stored], [, b]: readonly [string, Stored]): number =>
  a.sequence - b.sequence;

/** An expectation that is nearly free where it is met: there are dozens after each step. */
export function same(actual: unknown, expected: unknown, what: string): void {
  if (!isDeepStrictEqual(actual, expected)) expect(actual, what).toEqual(expected);
}

/** Of an entry of `standing`: the node it is filed under, and the rest of the queue's name. */
function queueOf(words: readonly string[]): string {
  return `${words[2]}/${words.at(-1)}`;
}

function limitersOf(queue: string): string[] {
  const names = queue.split('/')[3] ?? '';
  return names === '' ? [] : names.split(',');
}

function numbers(hash: Record<string, string>): Record<string, number> {
  return Object.fromEntries(Object.entries(hash).map(([name, value]) => [name, Number(value)]));
}
