/** Prompts through gateway, Redis, worker and replica: the protocols' answers, and every other end. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { Redis } from 'ioredis';
import { expect, test } from 'vitest';
import { nodeChannel } from '../../src/admission/index.ts';
import { expectRefusal, expectRetryAfter } from './errors.ts';
import { eventually, newWorld, policyValues, type World } from './world.ts';

const chat = { model: 'mistral', messages: [{ role: 'user', content: 'Why is the sky blue?' }] };

/** A prompt that runs until the test ends it: the replica takes it and never answers. */
async function hang(world: World): Promise<{ leave: () => void; answer: Promise<unknown> }> {
  await world.simulator.setFault({ mode: 'hang' });
  const { started } = world.simulator.state();
  const controller = new AbortController();
  const { signal } = controller;
  const answer = world.post('/v1/chat/completions', chat, { signal }).catch(() => 'gone');
  await world.simulator.until((counts) => counts.started > started);
  return { leave: () => controller.abort(), answer };
}

test("OpenAI's paths answer as the replica does, with id, wait and usage", async () => {
  const world = await newWorld();
  const paths: [path: string, body: object, object: string][] = [
    ['/v1/chat/completions', chat, 'chat.completion'],
    ['/v1/completions', { prompt: 'Why?', max_tokens: 5 }, 'text_completion'],
    ['/v1/embeddings', { input: ['one', 'two'] }, 'list'],
  ];
  for (const [path, body, object] of paths) {
    const answer = await world.post(path, body, { headers: { 'Sluice-Priority': '5' } });
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-type')).toContain('application/json');
    expect(answer.headers.get('sluice-queue-ms')).toMatch(/^\d{1,4}$/);
    const id = answer.headers.get('sluice-request-id');
    expect(id).toMatch(new RegExp(`^${world.config.domain}-`));
    expect(world.simulator.state().log.at(-1)).toMatchObject({ request_id: id, path, attempt: 1 });
    const usage = { prompt_tokens: expect.any(Number), total_tokens: expect.any(Number) };
    expect(await answer.json()).toMatchObject({ object, model: 'mistral', usage });
  }
  const models = await (await world.get('/v1/models')).json();
  expect(models).toMatchObject({ object: 'list', data: [{ id: 'mistral', object: 'model' }] });
  await world.idle();
});

test('Ollama gets a stream unless it says otherwise, and never of embeddings', async () => {
  const world = await newWorld();
  const text = 'Why?';
  const paths: [path: string, body: object, part: object][] = [
    ['/api/generate', { model: 'mistral', prompt: text }, { response: expect.any(String) }],
    ['/api/chat', chat, { message: { role: 'assistant', content: expect.any(String) } }],
  ];
  for (const [path, body, part] of paths) {
    const done = { model: 'mistral', done: true, eval_count: expect.any(Number), ...part };
    for (const stream of [{}, { stream: true }]) {
      const answer = await world.post(path, { ...body, ...stream });
      expect(answer.headers.get('content-type')).toContain('application/x-ndjson');
      expect(answer.headers.get('sluice-request-id')).toBeTruthy();
      expect(answer.headers.get('sluice-queue-ms')).toMatch(/^\d{1,4}$/);
      const lines = (await answer.text()).trimEnd().split('\n');
      expect(lines.length).toBeGreaterThan(1);
      expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject(done);
    }
    const whole = await world.post(path, { ...body, stream: false });
    expect(whole.headers.get('content-type')).toContain('application/json');
    expect(await whole.json()).toMatchObject(done);
  }
  const embedded = await world.post('/api/embed', { model: 'mistral', input: text });
  expect(embedded.headers.get('content-type')).toContain('application/json');
  expect(await embedded.json()).toMatchObject({ embeddings: [expect.any(Array)] });
});

test('a body is JSON whatever its content type says, or says nothing', async () => {
  const world = await newWorld();
  const types = ['text/plain', 'application/x-www-form-urlencoded', 'application/xml', 'a/b'];
  for (const type of types) {
    const headers = { 'content-type': type };
    expect((await world.post('/api/generate', { prompt: 'a' }, { headers })).status).toBe(200);
  }
  const head =
    'POST /api/generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 14\r\n';
  for (const type of ['', 'Content-Type: nonsense\r\n', 'Content-Type: \r\n']) {
    expect(await world.raw(`${head}${type}\r\n{"prompt":"a"}`)).toMatch(/^HTTP\/1.1 200 /);
  }
});

test("the replica's own refusal is the answer", async () => {
  const world = await newWorld();
  const answer = await world.post('/v1/chat/completions', { ...chat, n: 5 });
  await expectRefusal(answer, 'openai', { status: 400, code: 'invalid_request', param: 'n' });
  expect(answer.headers.get('sluice-request-id')).toBeTruthy();
  expect(world.simulator.state()).toMatchObject({ rejected: 1, started: 0 });
  await world.idle();
});

test('a replica that fails is tried three times, then the prompt has failed', async () => {
  const world = await newWorld({ replicas: 3 });
  await world.simulator.setFault({ mode: 'error' });
  const answer = await world.post('/v1/chat/completions', chat);
  const refusal = { status: 502, code: 'upstream_failed' };
  expect(await expectRefusal(answer, 'openai', refusal)).toContain('500');
  const id = answer.headers.get('sluice-request-id');
  const { log } = world.simulator.state();
  expect(log.map(({ request_id, attempt }) => [request_id, attempt])).toEqual([
    [id, 1],
    [id, 2],
    [id, 3],
  ]);
  await world.idle();
});

test('a replica that fails once is not seen by the client', async () => {
  const world = await newWorld({ replicas: 2 });
  await world.simulator.setFault({ mode: 'cut', count: 1, after_tokens: 3 });
  const answer = await world.post('/api/generate', { prompt: 'Why?', stream: false });
  expect(answer.status).toBe(200);
  expect(await answer.text()).toContain('"done":true');
  expect(world.simulator.state()).toMatchObject({ failed: 1, completed: 1 });
  await world.idle();
});

test('who waits too long gets queue_timeout, and does not run later', async () => {
  const world = await newWorld({ max: 1 });
  const running = await hang(world);
  const headers = { 'Sluice-Timeout-Ms': '60' };
  const openai = await world.post('/v1/chat/completions', chat, { headers });
  await expectRefusal(openai, 'openai', { status: 504, code: 'queue_timeout' });
  expectRetryAfter(openai);
  expect(openai.headers.get('sluice-request-id')).toBeTruthy();
  const ollama = await world.post('/api/generate', { prompt: 'Why?' }, { headers });
  await expectRefusal(ollama, 'ollama', { status: 504, code: 'queue_timeout' });
  expectRetryAfter(ollama);
  running.leave();
  await world.idle();
  expect(world.simulator.state().started).toBe(1);
});

test('a policy may name the status for who waits too long; a limit on tokens is kept', async () => {
  const policy = policyValues(1) as { policy: { concurrency_scheduler: { scheduler: object } } };
  const scheduler = policy.policy.concurrency_scheduler.scheduler;
  Object.assign(scheduler, { denied_response_status_code: 503 });
  const world = await newWorld({ config: { policies: [policy], limits: { tokens: 1_000 } } });
  const running = await hang(world);
  const headers = { 'Sluice-Timeout-Ms': '60' };
  const denied = await world.post('/v1/chat/completions', chat, { headers });
  await expectRefusal(denied, 'openai', { status: 503, code: 'queue_timeout' });
  const costly = await world.post('/v1/chat/completions', { ...chat, max_tokens: 5_000 });
  const refusal = { status: 400, code: 'invalid_request', param: 'tokens' };
  await expectRefusal(costly, 'openai', refusal);
  running.leave();
  await world.idle();
});

test('a prompt that a replica cannot stomach does not take the replica out of the pool', async () => {
  const world = await newWorld({ replicas: 2 });
  await world.simulator.setFault({ mode: 'error', count: 3 });
  const poison = await world.post('/v1/chat/completions', chat);
  await expectRefusal(poison, 'openai', { status: 502, code: 'upstream_failed' });
  const { replicas } = await world.view();
  expect(replicas.map(({ down_until }) => down_until)).toEqual([undefined, undefined]);
  expect((await world.post('/v1/chat/completions', chat)).status).toBe(200);
});

test('a full queue refuses at once', async () => {
  const world = await newWorld({ max: 1, config: { limits: { waiting: 1 } } });
  const running = await hang(world);
  const controller = new AbortController();
  const { signal } = controller;
  const waits = world.post('/v1/chat/completions', chat, { signal }).catch(() => 'gone');
  await world.until((view) => view.waiting === 1);
  const openai = await world.post('/v1/chat/completions', chat);
  await expectRefusal(openai, 'openai', { status: 429, code: 'queue_full' });
  expectRetryAfter(openai);
  const ollama = await world.post('/api/chat', chat);
  await expectRefusal(ollama, 'ollama', { status: 429, code: 'queue_full' });
  expectRetryAfter(ollama);
  controller.abort();
  running.leave();
  expect(await waits).toBe('gone');
  await world.idle();
});

test('a client that leaves while it waits leaves the queue', async () => {
  const world = await newWorld({ max: 1 });
  const running = await hang(world);
  const controller = new AbortController();
  const { signal } = controller;
  const waits = world.post('/v1/chat/completions', chat, { signal }).catch(() => 'gone');
  await world.until((view) => view.waiting === 1);
  controller.abort();
  await waits;
  const view = await world.until(({ waiting }) => waiting === 0);
  expect(view.live).toBe(1);
  running.leave();
  await world.idle();
  expect(world.simulator.state().started).toBe(1);
});

test('a client that leaves while its prompt runs ends it at the replica and frees the slot', async () => {
  const world = await newWorld({ max: 1 });
  const running = await hang(world);
  const next = world.post('/v1/chat/completions', chat);
  await world.until((view) => view.waiting === 1);
  await world.simulator.setFault({ mode: 'none' });
  running.leave();
  expect(await running.answer).toBe('gone');
  await world.simulator.until((counts) => counts.aborted === 1);
  expect((await next).status).toBe(200);
  await world.idle();
  expect(world.simulator.state()).toMatchObject({ started: 2, completed: 1, in_flight_max: 1 });
});

test('labels in the header choose workload and queue', async () => {
  const world = await newWorld({ max: 1 });
  const running = await hang(world);
  const headers = {
    'Sluice-Labels': 'workload=paid%20tier,user_id=u%2F1;property, priority=7.5',
  };
  const { signal, ...controller } = aborter();
  const waits = world.post('/v1/chat/completions', chat, { headers, signal }).catch(() => 'gone');
  await world.until((view) => view.waiting === 1);
  const queue = await (await world.get('/v1/queues/mistral-prompt')).json();
  const workload = { name: 'paid tier', priority: 7.5, waiting: 1, in_flight: 0 };
  expect(queue).toMatchObject({ workloads: expect.arrayContaining([workload]) });
  controller.abort();
  running.leave();
  await waits;
  await world.idle();
});

test('a gateway that stops tells its clients, and ends what they wait for', async () => {
  const world = await newWorld({ max: 1 });
  const running = await hang(world);
  const waits = world.post('/v1/chat/completions', chat);
  await world.until((view) => view.waiting === 1);
  await world.stopGateway();
  for (const answer of [await running.answer, await waits]) {
    await expectRefusal(answer as Response, 'openai', { status: 503, code: 'unavailable' });
    expectRetryAfter(answer as Response);
  }
  await world.simulator.until((counts) => counts.aborted === 1);
  await world.idle();
});

test('a gateway that stops refuses in its own shape what still comes', async () => {
  const world = await newWorld();
  const { hostname, port } = new URL(world.url);
  const socket = connect(Number(port), hostname);
  socket.setEncoding('utf8');
  let answer = '';
  socket.on('data', (text) => {
    answer += text;
  });
  // The first answer shows that the second request has begun before the gateway stops.
  const head = 'GET /healthz HTTP/1.1\r\nHost: x\r\n';
  socket.write(`${head}\r\nGET /v1/models HTTP/1.1\r\n`);
  await eventually(async () => answer.includes('"up"'));
  answer = '';
  const ended = once(socket, 'close');
  const stopped = world.stopGateway(10_000);
  // The listening port is given up once the stop has begun.
  await eventually(() =>
    fetch(`${world.url}/healthz`).then(
      () => false,
      () => true,
    ),
  );
  socket.write('Host: x\r\n\r\n');
  await Promise.all([ended, stopped]);
  expect(answer).toMatch(/^HTTP\/1.1 503 /);
  expect(answer).toMatch(/^retry-after: 1\r$/m);
  expect(answer).toContain('"code":"unavailable"');
});

test('what is no event, or a lie, on the channel of a gateway does it no harm', async () => {
  const world = await newWorld();
  const running = await hang(world);
  const { members } = await world.view();
  const gateway = members.find((member) => member.kind === 'gateway');
  const channel = nodeChannel(world.config.domain, gateway?.id ?? '');
  const id = world.simulator.state().log.at(-1)?.request_id;
  const redis = new Redis(world.redisUrl);
  const texts = ['garbage', 'null', '[]', '{"id":5}', `{"id":"${id}","state":"done"}`];
  // The gateway hears it, and the worker knows nothing of it.
  for (const text of texts) expect(await redis.publish(channel, text)).toBe(1);
  redis.disconnect();
  await world.simulator.setFault({ mode: 'none' });
  expect((await world.post('/v1/chat/completions', chat)).status).toBe(200);
  running.leave();
  expect(await running.answer).toBe('gone');
  await world.idle();
});

test('the views of the operator have their shapes', async () => {
  const dotted = policyValues(2, 'team.a');
  const world = await newWorld({ config: { policies: [dotted] } });
  const running = await hang(world);
  const queue = {
    control_point: 'mistral-prompt',
    paused: false,
    waiting: 0,
    limits: [{ key: 'team.a', limit: 2, in_flight: 1, waiting: 0 }],
    workloads: [{ name: 'default', priority: 1, waiting: 0, in_flight: 1 }],
  };
  expect(await (await world.get('/v1/queues')).json()).toEqual({ queues: [queue] });
  expect(await (await world.get('/v1/queues/mistral-prompt')).json()).toEqual(queue);
  const { replicas } = (await (await world.get('/v1/replicas')).json()) as { replicas: object[] };
  expect(replicas).toEqual([
    {
      id: `${world.config.domain}-1`,
      pool: world.config.domain,
      url: world.simulator.url,
      protocol: 'ollama',
      max_inflight: 8,
      source: 'config',
      state: 'ready',
      health: 'up',
      in_flight: 1,
    },
  ]);
  expect(await (await world.get('/v1/policies')).json()).toMatchObject({
    version: 1,
    policies: [{ name: 'team.a', source: expect.any(String), policy: dotted }],
  });
  const id = world.simulator.state().log.at(-1)?.request_id;
  expect(await (await world.get(`/v1/requests/${id}`)).json()).toEqual({
    id,
    state: 'running',
    position: 0,
    ahead: 0,
    waits_for: [],
    estimated_start_ms: 0,
    basis: expect.any(String),
  });
  expect(await (await world.get('/readyz')).json()).toEqual({ status: 'ready' });
  running.leave();
  await world.idle();
});

function aborter() {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort() };
}
