/** API keys: who may call, and whose labels count. */
import { expect, test } from 'vitest';
import { expectRefusal } from './errors.ts';
import { slotValues } from './policies.ts';
import { isIdle, newWorld } from './world.ts';

const apiKeys = [
  { key: 'key-of-the-free-tier', labels: { user_id: 'bound', workload: 'free', priority: '9' } },
  { key: 'key-without-labels' },
];
const bearer = (key: string) => ({ Authorization: `Bearer ${key}` });

test('without a valid key nothing is told or queued, not even that the body is bad', async () => {
  const world = await newWorld({ config: { api_keys: apiKeys } });
  const credentials: Record<string, string>[] = [
    {},
    { Authorization: '' },
    { Authorization: 'Bearer' },
    { Authorization: 'key-without-labels' },
    { Authorization: 'Basic key-without-labels' },
    bearer('key-without-label'),
    bearer('key-without-labels2'),
    bearer('key-without-labels key-without-labels'),
    bearer('__proto__'),
  ];
  const unauthorized = { status: 401, code: 'unauthorized' };
  for (const headers of credentials) {
    for (const path of ['/v1/chat/completions', '/v1/jobs', '/v1/nothing']) {
      await expectRefusal(await world.post(path, 'no JSON', { headers }), 'openai', unauthorized);
    }
    const ollama = await world.post('/api/generate', { prompt: 'a' }, { headers });
    await expectRefusal(ollama, 'ollama', unauthorized);
  }
  const paths = ['/v1/jobs/a', '/v1/requests/a', '/v1/queues', '/v1/queues/mistral-prompt'];
  for (const path of [...paths, '/v1/policies', '/v1/replicas', '/v1/models']) {
    await expectRefusal(await world.get(path), 'openai', unauthorized);
  }
  for (const path of ['/v1/jobs/a', '/v1/policies/mistral', '/v1/policies/mistral?force=true']) {
    const deleted = await world.get(path, { method: 'DELETE' });
    await expectRefusal(deleted, 'openai', unauthorized);
  }
  const put = await world.get('/v1/policies/mistral', { method: 'PUT', body: 'no: policy' });
  await expectRefusal(put, 'openai', unauthorized);
  for (const path of ['/healthz', '/readyz']) expect((await world.get(path)).status).toBe(200);
  expect(isIdle(await world.view())).toBe(true);
  expect(world.simulator.state().started).toBe(0);
});

test('only a key that may do so changes policies', async () => {
  const admin = { key: 'key-of-the-operator', admin: true };
  const world = await newWorld({ config: { api_keys: [...apiKeys, admin] } });
  const change = (key: string, method: string, body?: string) =>
    world.get('/v1/policies/mistral', {
      method,
      headers: bearer(key),
      ...(body !== undefined && { body }),
    });
  const forbidden = { status: 403, code: 'forbidden' };
  await expectRefusal(await change('key-without-labels', 'PUT', '{}'), 'openai', forbidden);
  await expectRefusal(await change('key-without-labels', 'DELETE'), 'openai', forbidden);
  const read = await world.get('/v1/policies/mistral', { headers: bearer('key-without-labels') });
  const { policy } = (await read.json()) as { policy: object };
  expect((await change(admin.key, 'PUT', JSON.stringify(policy))).status).toBe(200);
  expect((await change(admin.key, 'DELETE')).status).toBe(200);
});

test("a key's labels win over the headers, and those over the body's", async () => {
  const operator = { key: 'key-of-the-operator', admin: true };
  const world = await newWorld({ max: 1, config: { api_keys: [...apiKeys, operator] } });
  await world.simulator.setFault({ mode: 'hang' });
  const headers = {
    ...bearer('key-of-the-free-tier'),
    'Sluice-Labels': 'user_id=somebody,workload=paid,priority=7',
    'Sluice-Priority': '8',
  };
  const job = {
    path: '/api/generate',
    body: { prompt: 'Why?' },
    labels: { user_id: 'else', priority: '2', team: 't1' },
  };
  const answer = await world.post('/v1/jobs', job, { headers });
  const { id } = (await answer.json()) as { id: string };
  const { request } = await world.admission.inspectRequest(id);
  expect(request?.queue).toMatch(/^mistral\/free@9\/bound\//);
  // Also when it is scheduled again.
  const values = slotValues({ max: 1, perLabel: { team: 3 } });
  const changed = { method: 'PUT', headers: bearer(operator.key), body: JSON.stringify(values) };
  expect((await world.get('/v1/policies/mistral', changed)).status).toBe(200);
  const { request: moved } = await world.admission.inspectRequest(id);
  expect(moved?.queue).toMatch(/^mistral\/free@9\/bound\/mistral.team=t1,/);
  expect(request).toMatchObject({
    labels: { user_id: 'bound', workload: 'free', priority: '9', team: 't1' },
  });

  const plain = { headers: bearer('key-without-labels') };
  const open = await world.post('/v1/jobs', { ...job, labels: { user_id: 'free' } }, plain);
  const other = ((await open.json()) as { id: string }).id;
  const { request: second } = await world.admission.inspectRequest(other);
  expect(second?.queue).toMatch(/^mistral\/default@1\/free\//);
  for (const one of [id, other]) {
    await world.get(`/v1/jobs/${one}`, { ...changed, method: 'DELETE', body: null });
  }
  await world.idle();
});

test('what one key has asked for is nothing to another, but to an admin', async () => {
  const operator = { key: 'key-of-the-operator', admin: true };
  const world = await newWorld({ config: { api_keys: [...apiKeys, operator] } });
  await world.simulator.setFault({ mode: 'hang', count: 1 });
  const own = bearer('key-without-labels');
  const job = { path: '/api/generate', body: { prompt: 'Why?' } };
  const answer = await world.post('/v1/jobs', job, { headers: own });
  const { id } = (await answer.json()) as { id: string };
  await world.simulator.until(({ started }) => started === 1);
  const unknown = { status: 404, code: 'unknown_job' } as const;
  const asOther = async () => {
    const headers = bearer('key-of-the-free-tier');
    for (const path of [`/v1/jobs/${id}`, `/v1/jobs/${id}/stream`, `/v1/requests/${id}`]) {
      await expectRefusal(await world.get(path, { headers }), 'openai', unknown);
    }
    const deleted = await world.get(`/v1/jobs/${id}`, { method: 'DELETE', headers });
    await expectRefusal(deleted, 'openai', unknown);
  };
  await asOther();
  expect(world.simulator.state()).toMatchObject({ in_flight: 1 });
  for (const headers of [own, bearer(operator.key)]) {
    expect((await world.get(`/v1/jobs/${id}`, { headers })).status).toBe(200);
    expect((await world.get(`/v1/requests/${id}`, { headers })).status).toBe(200);
  }
  await world.get(`/v1/jobs/${id}`, { method: 'DELETE', headers: own });
  await world.idle();
  // And when it is over.
  await asOther();
  expect((await world.get(`/v1/jobs/${id}`, { headers: own })).status).toBe(200);
});
