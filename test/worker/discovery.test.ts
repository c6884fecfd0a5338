/** Replicas that DNS names: what is set when the answer changes, fails, or is somebody else's to ask. */

import { pino } from 'pino';
import { expect, onTestFinished, test, vi } from 'vitest';
import type { ReplicaGiven } from '../../src/admission/index.ts';
import type { Config } from '../../src/config.ts';
import type { DnsResolver } from '../../src/pool/index.ts';
import { Discovery } from '../../workers/discovery.ts';

type Answer = readonly string[] | Error;

/** What was set for the pool so far, and the next thing that is. */
function world(answers: Answer[]) {
  const log: string[] = [];
  const sets: string[][] = [];
  let onSet = () => {};
  let asked = 0;
  const resolver: DnsResolver = {
    lookup: async () => {
      asked += 1;
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      if (answer instanceof Error) throw answer;
      return (answer ?? []).map((address) => ({ address, family: 4 }));
    },
    resolveSrv: async () => [],
  };
  const pools: Config['pools'] = {
    gpu: {
      replicas: [],
      template: 'mistral-instruct',
      dns: {
        ...{ name: 'vllm', kind: 'address', port: 8000, scheme: 'http', refreshMs: 2 },
        ...{ protocol: 'ray', maxInflight: 7, zone: 'eu-1', credentials: 'team' },
      },
    },
    other: { replicas: [] },
  };
  const given: ReplicaGiven[] = [];
  const replicas = {
    set: async (pool: string, list: readonly ReplicaGiven[]) => {
      given.splice(0, Number.POSITIVE_INFINITY, ...list);
      sets.push([pool, ...list.map(({ url }) => url)]);
      onSet();
    },
  };
  const discovery = new Discovery({
    admission: { replicas } as never,
    pools,
    log: pino({ level: 'warn' }, { write: (line: string) => void log.push(line) }),
    resolver,
  });
  onTestFinished(() => discovery.stop());
  const next = () =>
    new Promise<void>((resolve) => {
      onSet = resolve;
    });
  return { discovery, sets, given, log, next, asked: () => asked };
}

const failed = Object.assign(new Error('try again'), { code: 'EAI_AGAIN' });
const nobody = Object.assign(new Error('no such name'), { code: 'ENOTFOUND' });

test('what the name stands for is the pool, also when that is nothing; no answer changes nothing', async () => {
  const { discovery, sets, given, log, next } = world([
    ['10.0.0.1', '10.0.0.2'],
    ['10.0.0.2', '10.0.0.3'],
    failed,
    nobody,
    ['10.0.0.9'],
  ]);
  discovery.setPools(['gpu', 'other']);
  await next();
  expect(given[0]).toEqual({
    id: 'gpu-10-0-0-1-8000',
    url: 'http://10.0.0.1:8000',
    protocol: 'ray',
    model: undefined,
    template: 'mistral-instruct',
    max_inflight: 7,
    price: undefined,
    zone: 'eu-1',
    spot: undefined,
    credentials: 'team',
    probe: undefined,
  });
  await next();
  await next();
  await next();
  const url = (last: number) => `http://10.0.0.${last}:8000`;
  expect(sets.slice(0, 4)).toEqual([
    ['gpu', url(1), url(2)],
    ['gpu', url(2), url(3)],
    ['gpu'],
    ['gpu', url(9)],
  ]);
  expect(log.join('')).toContain('EAI_AGAIN');
});

test('only who probes the pool asks, and asks no more when it is another one', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  onTestFinished(() => void vi.useRealTimers());
  const { discovery, asked, next } = world([['10.0.0.1']]);
  discovery.setPools(['other']);
  vi.advanceTimersByTime(100);
  expect(asked()).toBe(0);
  discovery.setPools(['gpu']);
  await next();
  discovery.setPools(['gpu']);
  expect(asked()).toBe(1);
  vi.advanceTimersByTime(4);
  expect(asked()).toBe(3);
  discovery.setPools([]);
  vi.advanceTimersByTime(100);
  expect(asked()).toBe(3);
});
