/** Idempotency-Key: the same key and body are one request, whoever repeats it and wherever. */
import { expect, test } from 'vitest';
import { expectRefusal } from './errors.ts';
import { slotValues } from './policies.ts';
import { newWorld } from './world.ts';

const chat = { messages: [{ role: 'user', content: 'Why?' }] };
const path = '/v1/chat/completions';
const key = (name: string) => ({ 'Idempotency-Key': name });

test('repeats get the answer of the one request, while it runs and after it', async () => {
  const world = await newWorld({ simulator: { speed: 100 } });
  const other = await world.startAnother();
  const headers = key('k1');
  const post = (url: string) =>
    fetch(`${url}${path}`, { method: 'POST', body: JSON.stringify(chat), headers });
  const answers = await Promise.all([world.url, other, world.url, other].map(post));
  answers.push(await post(other));
  const ids = answers.map((answer) => answer.headers.get('sluice-request-id'));
  expect(new Set(ids).size).toBe(1);
  const bodies = await Promise.all(answers.map((answer) => answer.text()));
  expect(new Set(bodies).size).toBe(1);
  expect(JSON.parse(bodies[0] ?? '')).toMatchObject({ object: 'chat.completion' });
  expect(world.simulator.state().started).toBe(1);
  await world.idle();
});

test('a repeat of a stream gets it from its beginning', async () => {
  const world = await newWorld({ simulator: { streamTokens: 1 } });
  const body = { ...chat, stream: true };
  const headers = key('k');
  const texts = [];
  for (let repeat = 0; repeat < 3; repeat++) {
    texts.push(await (await world.post(path, body, { headers })).text());
  }
  expect(texts[0]).toContain('[DONE]');
  expect(new Set(texts).size).toBe(1);
  expect(world.simulator.state().started).toBe(1);
});

test('another body, path or label under the same key is an error', async () => {
  const world = await newWorld();
  const headers = key('k');
  expect((await world.post(path, chat, { headers })).status).toBe(200);
  const conflict = { status: 422, code: 'idempotency_conflict', param: 'Idempotency-Key' } as const;
  const others: [string, object, object][] = [
    [path, { ...chat, seed: 1 }, {}],
    ['/v1/completions', { prompt: 'Why?' }, {}],
    ['/v1/jobs', { path, body: chat }, {}],
    [path, chat, { 'Sluice-Labels': 'user_id=u2' }],
  ];
  for (const [otherPath, body, more] of others) {
    const refused = await world.post(otherPath, body, { headers: { ...headers, ...more } });
    await expectRefusal(refused, 'openai', conflict);
  }
  expect(world.simulator.state().started).toBe(1);
});

test('a job that is sent twice is one job', async () => {
  const world = await newWorld();
  const headers = key('k');
  const ids = new Set();
  for (let repeat = 0; repeat < 3; repeat++) {
    const answer = await world.post('/v1/jobs', { path, body: chat }, { headers });
    expect(answer.status).toBe(202);
    ids.add(((await answer.json()) as { id: string }).id);
  }
  expect(ids.size).toBe(1);
  await world.simulator.until(({ completed }) => completed === 1);
  expect(world.simulator.state().started).toBe(1);
});

test('keys belong to who uses them', async () => {
  const api_keys = [{ key: 'a' }, { key: 'b' }];
  const world = await newWorld({ config: { api_keys } });
  const ids = new Set();
  for (const { key: apiKey } of [...api_keys, ...api_keys]) {
    const headers = { ...key('k'), Authorization: `Bearer ${apiKey}` };
    const answer = await world.post(path, chat, { headers });
    ids.add(answer.headers.get('sluice-request-id'));
  }
  expect(ids.size).toBe(2);
});

test('what failed is tried again under its key, once for all who repeat it', async () => {
  const world = await newWorld({ config: { attempts: 1 } });
  await world.simulator.setFault({ mode: 'error', count: 1 });
  const headers = key('k');
  expect((await world.post(path, chat, { headers })).status).toBe(502);
  const answers = await Promise.all([1, 2, 3].map(() => world.post(path, chat, { headers })));
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
  expect(new Set(answers.map((answer) => answer.headers.get('sluice-request-id'))).size).toBe(1);
  expect(world.simulator.state()).toMatchObject({ failed: 1, completed: 1, started: 2 });
});

test('it ends with the last client that waits for it, not before', async () => {
  const world = await newWorld({ max: 1 });
  const other = await world.startAnother();
  await world.simulator.setFault({ mode: 'stall', after_tokens: 1, count: 1 });
  const headers = key('k');
  const body = JSON.stringify({ ...chat, stream: true });
  const clients = [world.url, other].map((url) => {
    const controller = new AbortController();
    const { signal } = controller;
    return { controller, answer: fetch(url + path, { method: 'POST', body, headers, signal }) };
  });
  // Both hear the first token.
  const [first, second] = await Promise.all(clients.map(({ answer }) => answer));
  expect([first?.status, second?.status]).toEqual([200, 200]);
  clients[0]?.controller.abort();
  // Another prompt's whole life goes by on the other slots of nobody: the first one still runs.
  const third = new AbortController();
  const waits = world.post(path, chat, { signal: third.signal }).catch(() => 'gone');
  await world.until(({ waiting }) => waiting === 1);
  expect(world.simulator.state()).toMatchObject({ in_flight: 1, aborted: 0 });
  clients[1]?.controller.abort();
  await world.simulator.until(({ aborted }) => aborted === 1);
  expect((await waits) as Response).toMatchObject({ status: 200 });
  await world.idle();
});

test('a key that is none is refused', async () => {
  const world = await newWorld();
  for (const name of ['', 'x'.repeat(257)]) {
    const refused = await world.post(path, chat, { headers: key(name) });
    const refusal = { status: 400, code: 'invalid_request', param: 'Idempotency-Key' } as const;
    await expectRefusal(refused, 'openai', refusal);
  }
  expect(world.simulator.state().started).toBe(0);
});

test('a key does not wear out: what failed many times may succeed at last', async () => {
  const world = await newWorld({ config: { attempts: 1 } });
  await world.simulator.setFault({ mode: 'error', count: 25 });
  const statuses = [];
  for (let time = 0; time < 26; time++) {
    statuses.push((await world.post(path, chat, { headers: key('k') })).status);
  }
  expect(statuses).toEqual([...Array(25).fill(502), 200]);
});

test('a key is kept for as long as its request may take, and one that is refused for a minute', async () => {
  const timeouts = { keep_job: '30s' };
  const policies = [slotValues({ max: 1, scheduler: { max_queue_length: 0 } })];
  const world = await newWorld({ config: { timeouts, policies } });
  await world.simulator.setFault({ mode: 'stall', after_tokens: 1, count: 1 });
  const controller = new AbortController();
  const { signal } = controller;
  const headers = { ...key('a'), 'Sluice-Timeout-Ms': '3000000' };
  const body = { ...chat, stream: true };
  expect((await world.post(path, body, { headers, signal })).status).toBe(200);
  const ttls = async () => {
    const names = await world.redis.keys(`sluice:{${world.config.domain}}:idempotency:*`);
    const all = await Promise.all(names.map((name) => world.redis.pttl(name)));
    return all.toSorted((one, other) => one - other);
  };
  expect((await ttls())[0]).toBeGreaterThan(3_000_000);
  expect((await world.post(path, body, { headers: key('b') })).status).toBe(429);
  const [refused = 0] = await ttls();
  expect(refused).toBeGreaterThan(0);
  expect(refused).toBeLessThanOrEqual(60_000);
  controller.abort();
  await world.idle();
});

test('a stream that began anew is repeated from the beginning of the attempt that counts', async () => {
  const world = await newWorld({ replicas: 2, simulator: { streamTokens: 1, speed: 200 } });
  await world.simulator.setFault({ mode: 'cut', after_tokens: 5, count: 1 });
  const headers = key('k');
  const body = { ...chat, stream: true };
  const first = await (await world.post(path, body, { headers })).text();
  expect(first).toContain('upstream_failed');
  await world.simulator.until(({ completed, aborted }) => completed + aborted === 1);
  await world.idle();
  const again = await (await world.post(path, body, { headers })).text();
  expect(again).toContain('[DONE]');
  expect(again).not.toContain('error');
});

test('the model that /infer names is part of what is asked', async () => {
  const world = await newWorld();
  const headers = key('k');
  expect((await world.get('/infer?text=Why&model=mistral', { headers })).status).toBe(200);
  const other = await world.get('/infer?text=Why&model=mistral:latest', { headers });
  expect(other.status).toBe(422);
});
