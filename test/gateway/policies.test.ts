/** Policies over HTTP: put, read, listed and removed, and every problem of a wrong one at once. */
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { policyRecord } from '../../src/gateway/policy-book.ts';
import { expectRefusal } from './errors.ts';
import {
  limitValues,
  putPolicy,
  quotaValues,
  rateValues,
  removePolicy,
  slotValues,
} from './policies.ts';
import { newWorld, policyValues, type World } from './world.ts';

let world: World;
const stops: (() => Promise<void>)[] = [];

beforeAll(async () => {
  world = await newWorld({}, (stop) => {
    stops.push(stop);
  });
});
afterAll(async () => {
  for (const stop of stops.toReversed()) await stop();
});

const put = (name: string, body: RequestInit['body']) =>
  world.get(`/v1/policies/${name}`, { method: 'PUT', body: body ?? null });
const read = async (path: string) => (await world.get(path)).json();
const notFound = { status: 404, code: 'not_found' };
const invalid = (param: string) => ({ status: 400, code: 'invalid_request', param });

interface List {
  readonly version: number;
  readonly policies: readonly { readonly name: string }[];
}

const list = () => read('/v1/policies') as Promise<List>;

test('a policy of each blueprint is put, read, listed and removed', async () => {
  const before = await list();
  const all = [
    slotValues({ name: 'slots', controlPoint: 'a', perLabel: { user_id: 2 } }),
    quotaValues({ name: 'quota.b', controlPoint: 'a', capacity: 100, fill: 10, interval: '1s' }),
    rateValues({ name: 'rate', controlPoint: 'b', capacity: 5, fill: 1, interval: '1m' }),
    limitValues({ name: 'refusing', controlPoint: 'b', max: 3, perLabel: { user_id: 1 } }),
  ];
  for (const values of all) {
    const { policy_name: name } = values.policy;
    const told = {
      name,
      version: expect.stringMatching(/^\w{16}$/),
      source: 'api',
      policy: values,
    };
    const answer = await putPolicy(world.url, values);
    expect(answer.status).toBe(201);
    const overlap = 'policy slots selects a, too: both limits hold, and quota.b gives the order';
    const warned = name === 'quota.b' ? { ...told, warnings: [overlap] } : told;
    expect(await answer.json()).toEqual(warned);
    expect(await read(`/v1/policies/${name}`)).toEqual(told);
  }
  const { version, policies } = await list();
  expect(version).toBe(before.version + all.length);
  expect(policies.map(({ name }) => name)).toEqual([
    'mistral',
    'quota.b',
    'rate',
    'refusing',
    'slots',
  ]);
  expect(await read('/v1/queues/a')).toEqual({
    control_point: 'a',
    paused: false,
    waiting: 0,
    limits: [
      { key: 'quota.b', limit: 100, fill_amount: 10, interval_ms: 1_000, in_flight: 0, waiting: 0 },
      { key: 'slots.user_id', limit: 2, in_flight: 0, waiting: 0 },
      { key: 'slots', limit: 4, in_flight: 0, waiting: 0 },
    ],
    workloads: [],
  });
  expect(await read('/v1/queues/b')).toMatchObject({
    limits: [
      { key: 'rate', limit: 5, fill_amount: 1, interval_ms: 60_000 },
      { key: 'refusing.user_id', limit: 1, in_flight: 0 },
      { key: 'refusing', limit: 3, in_flight: 0 },
    ],
  });
  for (const { policy } of all) {
    const answer = await removePolicy(world.url, policy.policy_name);
    expect(answer.status).toBe(200);
    expect(await answer.json()).toEqual({ name: policy.policy_name, cancelled: 0 });
    await expectRefusal(await world.get(`/v1/policies/${policy.policy_name}`), 'openai', notFound);
  }
  await expectRefusal(await world.get('/v1/queues/a'), 'openai', notFound);
});

test('the same content changes nothing, other content its version', async () => {
  const before = await list();
  const same = await put('mistral', stringify(policyValues(4)));
  expect(same.status).toBe(200);
  expect(await same.json()).toMatchObject({ source: expect.stringContaining('sluice.yaml') });
  expect(await list()).toEqual(before);
  const other = await put('mistral', stringify(policyValues(5)));
  expect(other.status).toBe(200);
  expect(await other.json()).toMatchObject({ source: 'api', policy: policyValues(5) });
  expect((await list()).version).toBe(before.version + 1);
  await put('mistral', stringify(policyValues(4)));
});

test('what has no effect is said in the answer, and is not kept', async () => {
  const values = limitValues({ name: 'warned', service: 'web' });
  const answer = await putPolicy(world.url, values);
  expect(answer.status).toBe(201);
  const warnings = [
    'policy.concurrency_limiter.selectors[0].service is not used: the control point alone says ' +
      'where a policy applies',
  ];
  expect(await answer.json()).toMatchObject({ name: 'warned', policy: values, warnings });
  expect(await read('/v1/policies/warned')).not.toHaveProperty('warnings');
  await removePolicy(world.url, 'warned');
});

test('the flat form is put under its own name, and kept as it was given', async () => {
  const flat = {
    policy_name: 'flat',
    limit_by_label_key: '',
    max_inflight_duration: '60s',
    max_concurrency: 2,
    control_point: 'flat-point',
  };
  const answer = await put('flat', JSON.stringify(flat));
  expect(answer.status).toBe(201);
  expect(await answer.json()).toEqual({
    name: 'flat',
    version: expect.stringMatching(/^\w{16}$/),
    source: 'api',
    policy: flat,
  });
  expect(await read('/v1/policies/flat')).toMatchObject({ policy: flat });
  expect(await read('/v1/queues/flat-point')).toMatchObject({
    limits: [{ key: 'flat', limit: 2 }],
  });
  const misnamed = await put('other', JSON.stringify(flat));
  const message = await expectRefusal(misnamed, 'openai', invalid('policy_name'));
  expect(message).toContain('policy_name must be the name in the path');
  await removePolicy(world.url, 'flat');
});

test('YAML as people write it, and JSON with tabs', async () => {
  const yaml = `# A comment\n${stringify(slotValues({ name: 'text', max: 3 }))}`;
  expect((await put('text', yaml)).status).toBe(201);
  const json = JSON.stringify(slotValues({ name: 'text', max: 2 }), null, '\t');
  expect(await (await put('text', json)).json()).toMatchObject({
    policy: { policy: { concurrency_scheduler: { max_concurrency: 2 } } },
  });
  await removePolicy(world.url, 'text');
});

test('there are at most 256 policies, and those can still be changed', async () => {
  const many = await newWorld({ worker: false, redisUrl: world.redisUrl });
  const names = Array.from({ length: 255 }, (_, index) => `p${index}`);
  const records = names.map((name) => policyRecord('api', slotValues({ name }), {}));
  await many.admission.configure({ policies: records });
  const refused = await putPolicy(many.url, slotValues({ name: 'one-more' }));
  const refusal = { status: 400, code: 'invalid_request' };
  expect(await expectRefusal(refused, 'openai', refusal)).toContain('256');
  expect((await putPolicy(many.url, slotValues({ name: 'p7', max: 9 }))).status).toBe(200);
});

describe('what is refused', () => {
  test('a wrong policy, with every problem at once and nothing changed', async () => {
    const before = await list();
    const values = slotValues({ name: 'other', max: 0, perLabel: { user_id: -1 } });
    const wrong = { ...values, policy: { ...values.policy, prioritty: 1 } };
    const answer = await put('mistral', JSON.stringify(wrong));
    const message = await expectRefusal(answer, 'openai', invalid('policy.policy_name'));
    const block = 'policy.concurrency_scheduler';
    for (const path of [
      'policy.policy_name must be the name in the path',
      `${block}.max_concurrency must be`,
      `${block}.concurrency_limiter.per_label.user_id must be`,
      'policy.prioritty is not a field',
    ]) {
      expect(message).toContain(path);
    }
    expect(await list()).toEqual(before);
  });

  test('a name that no policy can have, whatever the document says', async () => {
    const values = JSON.stringify(slotValues({ name: 'a b' }));
    const refusal = { status: 400, code: 'invalid_request' };
    await expectRefusal(await put('a%20b', values), 'openai', refusal);
    await expectRefusal(await put('__proto__', values), 'openai', refusal);
  });

  const bodies: Record<string, [body: RequestInit['body'], says: string]> = {
    nothing: [null, 'the document must be a mapping'],
    'an empty body': ['', 'the document must be a mapping'],
    'a list': ['[]', 'the document must be a mapping'],
    'no YAML': ['a: [1', 'not valid YAML'],
    'two documents': ['a: 1\n---\na: 2', 'not valid YAML'],
    'a key twice': ['{"blueprint": "a", "blueprint": "b"}', 'must be unique'],
    'aliases without end': [bomb(), 'not valid YAML'],
    'a deep nest': ['['.repeat(2_000), 'not valid YAML'],
    'deep lists': [`${'['.repeat(50)}${']'.repeat(50)}`, 'levels deep'],
    'no UTF-8': [Buffer.from('{"policy": "\xff"}', 'latin1'), 'not UTF-8'],
  };
  for (const [name, [body, says]] of Object.entries(bodies)) {
    test(`a body that is ${name}`, async () => {
      const refusal = { status: 400, code: 'invalid_request' };
      expect(await expectRefusal(await put('mistral', body), 'openai', refusal)).toContain(says);
    });
  }

  test('a body that is too large or compressed', async () => {
    const tooLarge = { status: 413, code: 'payload_too_large' };
    await expectRefusal(await put('mistral', `# ${'x'.repeat(200_000)}`), 'openai', tooLarge);
    const answer = await world.get('/v1/policies/mistral', {
      method: 'PUT',
      body: gzipSync('a: 1'),
      headers: { 'content-encoding': 'gzip' },
    });
    await expectRefusal(answer, 'openai', invalid('Content-Encoding'));
  });

  test('what does not exist, and what is not said clearly', async () => {
    await expectRefusal(await removePolicy(world.url, 'none'), 'openai', notFound);
    await expectRefusal(await removePolicy(world.url, 'none', '?force=true'), 'openai', notFound);
    for (const query of ['?force', '?force=yes', '?force=true&force=true']) {
      const answer = await removePolicy(world.url, 'mistral', query);
      await expectRefusal(answer, 'openai', invalid('force'));
    }
    const answer = await removePolicy(world.url, 'mistral', '?forse=true');
    await expectRefusal(answer, 'openai', invalid('forse'));
    const post = await world.post('/v1/policies', {});
    await expectRefusal(post, 'openai', { status: 405, code: 'method_not_allowed' });
  });
});

function bomb(): string {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
  for (let level = 1; level < 9; level++) {
    const references = Array.from({ length: 10 }, () => `*a${level - 1}`).join(', ');
    lines.push(`a${level}: &a${level} [${references}]`);
  }
  return lines.join('\n');
}
