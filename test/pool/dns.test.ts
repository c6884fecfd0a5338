/** The replicas that a name in DNS stands for, and when DNS has said nothing about them. */
import { expect, test } from 'vitest';
import { type DnsResolver, resolveReplicas, systemResolver } from '../../src/pool/index.ts';

const four = (address: string) => ({ address, family: 4 });
const six = (address: string) => ({ address, family: 6 });
const coded = (code: string) => Object.assign(new Error('hush'), { code });

/** A resolver that knows these hosts and services, and fails with a code where there is one. */
function knowing(
  hosts: Readonly<Record<string, ReturnType<typeof four>[] | string>>,
  services: Readonly<Record<string, { name: string; port: number }[] | string>> = {},
): DnsResolver {
  const answer = async <Item>(known: Item[] | string | undefined): Promise<Item[]> => {
    if (typeof known === 'object') return known;
    throw coded(known ?? 'ENOTFOUND');
  };
  return {
    lookup: (name) => answer(hosts[name]),
    resolveSrv: (name) => answer(services[name]),
  };
}

const address = { name: 'vllm', kind: 'address', port: 8000, scheme: 'http' } as const;
const srv = { name: '_http._tcp.vllm', kind: 'srv', scheme: 'https', path: '/mistral' } as const;

test('each address is a replica, sorted and once', async () => {
  const resolver = knowing({
    vllm: [four('10.0.0.2'), four('10.0.0.10'), four('10.0.0.2'), four('10.0.0.1')],
  });
  expect(await resolveReplicas('mistral', address, resolver)).toEqual({
    replicas: [
      { id: 'mistral-10-0-0-1-8000', url: 'http://10.0.0.1:8000' },
      { id: 'mistral-10-0-0-10-8000', url: 'http://10.0.0.10:8000' },
      { id: 'mistral-10-0-0-2-8000', url: 'http://10.0.0.2:8000' },
    ],
  });
});

test('IPv6 stands in brackets; where there is IPv4 too, that is the same server once more', async () => {
  const only = knowing({ vllm: [six('fd00::1'), six('fe80::1%eth0')] });
  expect(await resolveReplicas('m', { ...address, path: '/base' }, only)).toEqual({
    replicas: [{ id: 'm-fd00--1-8000', url: 'http://[fd00::1]:8000/base' }],
  });
  const both = knowing({ vllm: [six('::1'), four('127.0.0.1')] });
  expect(await resolveReplicas('m', address, both)).toEqual({
    replicas: [{ id: 'm-127-0-0-1-8000', url: 'http://127.0.0.1:8000' }],
  });
});

test('SRV records name hosts and their ports; one whose host is gone is left out', async () => {
  const resolver = knowing(
    { a: [four('10.0.0.1')], b: [six('fd00::b')] },
    {
      '_http._tcp.vllm': [
        { name: 'b', port: 8001 },
        { name: 'a', port: 8000 },
        { name: 'a', port: 8002 },
        { name: 'gone', port: 8000 },
      ],
    },
  );
  expect(await resolveReplicas('m', srv, resolver)).toEqual({
    replicas: [
      { id: 'm-10-0-0-1-8000', url: 'https://10.0.0.1:8000/mistral' },
      { id: 'm-10-0-0-1-8002', url: 'https://10.0.0.1:8002/mistral' },
      { id: 'm-fd00--b-8001', url: 'https://[fd00::b]:8001/mistral' },
    ],
  });
});

test('no such name is no replica; no answer is no news', async () => {
  for (const code of ['ENOTFOUND', 'ENODATA']) {
    const none = knowing({ vllm: code }, { '_http._tcp.vllm': code });
    expect(await resolveReplicas('m', address, none)).toEqual({ replicas: [] });
    expect(await resolveReplicas('m', srv, none)).toEqual({ replicas: [] });
  }
  for (const code of ['EAI_AGAIN', 'ESERVFAIL', 'ETIMEOUT', 'ECONNREFUSED']) {
    const failing = knowing({ vllm: code }, { '_http._tcp.vllm': code });
    expect(await resolveReplicas('m', address, failing)).toEqual({ failed: code });
    expect(await resolveReplicas('m', srv, failing)).toEqual({ failed: code });
  }
  const service = {
    '_http._tcp.vllm': [
      { name: 'a', port: 1 },
      { name: 'b', port: 1 },
    ],
  };
  const half = knowing({ a: [four('10.0.0.1')], b: 'EAI_AGAIN' }, service);
  expect(await resolveReplicas('m', srv, half)).toEqual({ failed: 'EAI_AGAIN' });
});

test('a resolver that does not answer is not waited for, and too many replicas are not taken', async () => {
  const silent: DnsResolver = {
    lookup: () => new Promise(() => {}),
    resolveSrv: () => new Promise(() => {}),
  };
  const late = { failed: 'no answer within 10 ms' };
  expect(await resolveReplicas('m', address, silent, 10)).toEqual(late);
  expect(await resolveReplicas('m', srv, silent, 10)).toEqual(late);
  const many = Array.from({ length: 1001 }, (_, i) => four(`10.0.${i >> 8}.${i & 255}`));
  expect(await resolveReplicas('m', address, knowing({ vllm: many.slice(1) }))).toMatchObject({
    replicas: { length: 1000 },
  });
  expect(await resolveReplicas('m', address, knowing({ vllm: many }))).toEqual({
    failed: 'named more than 1000 replicas',
  });
});

test('this machine resolves localhost, and asks once for a name that it is being asked for', async () => {
  const resolver = systemResolver();
  const both = await Promise.all([
    resolveReplicas('m', { ...address, name: 'localhost' }, resolver),
    resolveReplicas('m', { ...address, name: 'localhost' }),
  ]);
  const [first] = both;
  expect(both).toEqual([first, first]);
  expect(JSON.stringify(first)).toMatch(/"http:\/\/(?:127\.0\.0\.1|\[::1\]):8000"/);
  const [one, other] = [resolver.lookup('localhost'), resolver.lookup('localhost')];
  expect(other).toBe(one);
  await one;
  const later = resolver.lookup('localhost');
  expect(later).not.toBe(one);
  await later;
});
