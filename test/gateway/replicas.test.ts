/** Replicas over HTTP: who joins, drains and goes, and what is refused. */
import { expect, onTestFinished, test } from 'vitest';
import {
  type Simulator,
  type SimulatorOptions,
  startSimulator,
} from '../../src/simulator/index.ts';
import { expectRefusal } from './errors.ts';
import { eventually, newWorld, type World } from './world.ts';

const chat = { model: 'mistral', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 4 };

async function simulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const started = await startSimulator({ speed: 1000, ...options });
  onTestFinished(() => started.stop());
  return started;
}

function put(world: World, id: string, fields: object, init: RequestInit = {}): Promise<Response> {
  const [pool] = Object.keys(world.config.pools);
  const body = JSON.stringify({ pool, ...fields });
  return world.get(`/v1/replicas/${id}`, { method: 'PUT', body, ...init });
}

const remove = (world: World, id: string) => world.get(`/v1/replicas/${id}`, { method: 'DELETE' });

async function replica(world: World, id: string): Promise<Record<string, unknown>> {
  return (await world.get(`/v1/replicas/${id}`)).json() as Promise<Record<string, unknown>>;
}

test('a replica is put, serves, is put again as it is shown, drains and is gone', async () => {
  const world = await newWorld({ replicas: 0 });
  const other = await simulator();
  const waiting = world.post('/v1/chat/completions', chat);
  await world.until((view) => view.waiting === 1);
  const given = {
    url: other.url,
    protocol: 'openai',
    model: 'mistral',
    max_inflight: 3,
    price: 1.5,
    zone: 'eu-1',
    spot: true,
    readiness_probe: {
      path: '/v1/chat/completions',
      post_data: { model: 'mistral', messages: [{ role: 'user', content: 'Hi' }] },
      initial_delay_seconds: 1200,
      timeout_seconds: 2.5,
      period: '1m',
    },
    ttl_ms: 60_000,
  };
  const created = await put(world, 'r1', given);
  expect(created.status).toBe(201);
  const { ttl_ms, ...shown } = given;
  const told = {
    ...shown,
    id: 'r1',
    pool: Object.keys(world.config.pools)[0],
    source: 'api',
    state: 'ready',
    in_flight: 0,
    expires_at: expect.any(Number),
    readiness_probe: { ...given.readiness_probe, success_threshold: 1, failure_threshold: 1 },
  };
  expect(await created.json()).toEqual({ ...told, health: 'starting' });
  expect((await waiting).status).toBe(200);
  expect(await replica(world, 'r1')).toEqual({ ...told, health: 'up' });
  const { replicas, pools } = (await (await world.get('/v1/replicas')).json()) as {
    replicas: object[];
    pools: object[];
  };
  expect(replicas).toEqual([{ ...told, health: 'up' }]);
  const worker = expect.stringMatching(/^worker-/);
  const takes = { workers: [{ id: worker, takes: 16 }], prober: worker, paused: false };
  expect(pools).toEqual([{ pool: told.pool, limit: 3, in_flight: 0, ...takes }]);

  // What is shown may be put again, without what is only shown.
  const fields = Object.fromEntries(
    Object.entries(await replica(world, 'r1')).filter(
      ([name]) => !['id', 'source', 'health', 'in_flight', 'expires_at'].includes(name),
    ),
  );
  const again = await put(world, 'r1', fields);
  expect(again.status).toBe(200);
  const { expires_at: _, ...forGood } = told;
  expect(await again.json()).toEqual({ ...forGood, health: 'up' });

  const drained = await world.post('/v1/replicas/r1/drain', { deadline_ms: 5_000 });
  expect(drained.status).toBe(202);
  expect(await drained.json()).toMatchObject({
    state: 'draining',
    drain_until: expect.any(Number),
  });
  expect(await (await world.post('/v1/replicas/r1/ready', {})).json()).toMatchObject({
    state: 'ready',
  });
  expect(await (await remove(world, 'r1')).json()).toEqual({ id: 'r1', state: 'removed' });
  await expectRefusal(await remove(world, 'r1'), 'openai', { status: 404, code: 'not_found' });
  await world.idle();
});

test('what cannot be a replica is refused, with every problem, and changes nothing', async () => {
  const world = await newWorld();
  const before = await (await world.get('/v1/replicas')).text();
  const url = 'http://127.0.0.1:1';
  const wrong: readonly (readonly [string, object, RegExp])[] = [
    ['r1', {}, /url/],
    ['r1', { url: 'ftp://x' }, /url must be/],
    ['r1', { url: 'http://user:secret@x' }, /credentials/],
    ['r1', { url, pool: 'mistrl' }, /pool .*is not one of the pools/],
    ['r1', { url, protocol: 'grpc', max_inflight: 0 }, /protocol.*; max_inflight/],
    ['r1', { url, state: 'gone' }, /state/],
    ['r1', { url, ttl_ms: 5 }, /ttl_ms/],
    ['r1', { url, readiness_probe: { path: 'v1' } }, /readiness_probe/],
    ['r1', { url, nonsense: 1 }, /nonsense/],
    [encodeURIComponent('no name'), { url }, /id/],
  ];
  for (const [id, fields, reason] of wrong) {
    const refusal = { status: 400, code: 'invalid_request' };
    const message = await expectRefusal(await put(world, id, fields), 'openai', refusal);
    expect(message).toMatch(reason);
    expect(message).not.toContain('secret');
  }
  const drains = [{ deadline_ms: -1 }, { deadline_ms: 1.5 }, { time: 'soon' }, { when: 1 }, []];
  for (const body of [...drains, { deadline_ms: 1, time: new Date().toISOString() }]) {
    const response = await world.post(`/v1/replicas/${world.config.domain}-1/drain`, body);
    await expectRefusal(response, 'openai', { status: 400, code: 'invalid_request' });
  }
  const unknown = { status: 404, code: 'not_found' };
  await expectRefusal(await world.get('/v1/replicas/nobody'), 'openai', unknown);
  await expectRefusal(await world.post('/v1/replicas/nobody/drain', {}), 'openai', unknown);
  await expectRefusal(await world.post('/v1/replicas/nobody/ready', {}), 'openai', unknown);
  expect(await (await world.get('/v1/replicas')).text()).toBe(before);
});

test('only a key that may do so changes replicas, pauses, or reads dead letters', async () => {
  const api_keys = [{ key: 'user' }, { key: 'operator', admin: true }];
  const world = await newWorld({ config: { api_keys } });
  const as = (key: string, path: string, method: string, body?: object) =>
    world.get(path, {
      method,
      headers: { Authorization: `Bearer ${key}` },
      ...(body && { body: JSON.stringify(body) }),
    });
  const pool = world.config.domain;
  const changes: readonly (readonly [string, string, object?])[] = [
    ['PUT', '/v1/replicas/r1', { pool, url: 'http://127.0.0.1:1' }],
    ['POST', '/v1/replicas/r1/drain', {}],
    ['POST', '/v1/replicas/r1/ready', {}],
    ['DELETE', '/v1/replicas/r1'],
    ['PUT', `/v1/paused/pools/${pool}`],
    ['DELETE', `/v1/paused/pools/${pool}`],
    ['PUT', '/v1/paused/control_points/mistral-prompt'],
    ['DELETE', '/v1/paused/control_points/mistral-prompt'],
    ['GET', '/v1/dead-letters'],
    ['DELETE', '/v1/dead-letters'],
  ];
  for (const [method, path, body] of changes) {
    const refused = await as('user', path, method, body);
    await expectRefusal(refused, 'openai', { status: 403, code: 'forbidden' });
  }
  for (const [method, path, body] of changes) {
    expect((await as('operator', path, method, body)).ok, `${method} ${path}`).toBe(true);
  }
  // They read what is no secret.
  expect((await as('user', '/v1/replicas', 'GET')).status).toBe(200);
});

test('credentials: replicas are shown what their name stands for, and nobody else is', async () => {
  const credentials = { vllm: { bearer: 'top-secret', headers: { 'x-team': 'hush' } } };
  const world = await newWorld({ replicas: 0, config: { credentials } });
  const seen: (string | undefined)[][] = [];
  const { createServer } = await import('node:http');
  const server = createServer((request, response) => {
    seen.push([request.headers.authorization, [request.headers['x-team']].flat()[0]]);
    request.resume().on('end', () => {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ choices: [{ index: 0, message: { content: 'yes' } }] }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const { port } = server.address() as { port: number };
  const url = `http://127.0.0.1:${port}`;
  const probe = { path: '/v1/models', period: '1m' };
  const fields = { url, protocol: 'openai', credentials: 'vllm', readiness_probe: probe };
  expect(await (await put(world, 'r1', fields)).json()).not.toHaveProperty('warnings');
  expect((await world.post('/v1/chat/completions', chat)).status).toBe(200);
  // The probe and the prompt.
  expect(seen).toEqual([
    ['Bearer top-secret', 'hush'],
    ['Bearer top-secret', 'hush'],
  ]);
  const stored = await world.redis.hget(`sluice:{${world.config.domain}}:replicas`, 'r1');
  const shown = JSON.stringify([await replica(world, 'r1'), stored, world.log()]);
  expect(shown).not.toMatch(/top-secret|hush/);

  const unknown = await put(world, 'r2', { url, credentials: 'others' });
  expect(await unknown.json()).toMatchObject({
    warnings: [expect.stringMatching(/no credentials named others/)],
  });
  await remove(world, 'r1');
  await put(world, 'r2', { url, credentials: 'others', readiness_probe: probe });
  await eventually(async () => `${(await replica(world, 'r2')).reason}`.includes('others'));
  expect(seen.length).toBe(2);
});

test('replicas that DNS names join the pool, and are told apart from others', async () => {
  const served = await simulator();
  const { port } = new URL(served.url);
  const dns = { name: 'localhost', port: Number(port), protocol: 'openai', max_inflight: 5 };
  const world = await newWorld({
    config: { pools: { found: { dns } }, models: { mistral: { pool: 'found' } } },
  });
  expect((await world.post('/v1/chat/completions', chat)).status).toBe(200);
  expect(served.state().completed).toBe(1);
  expect(await replica(world, `found-127-0-0-1-${port}`)).toMatchObject({
    source: 'dns',
    url: `http://127.0.0.1:${port}`,
    max_inflight: 5,
    health: 'up',
  });
});

test('what one replica of a pool cannot be asked is refused as soon as it has joined', async () => {
  const world = await newWorld();
  const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }];
  const { model, messages } = chat;
  const asked = { model, messages, tools };
  expect((await world.post('/v1/chat/completions', asked)).status).toBe(200);
  await put(world, 'ray', { url: 'http://127.0.0.1:1', protocol: 'ray', state: 'draining' });
  const refused = await world.post('/v1/chat/completions', asked);
  await expectRefusal(refused, 'openai', { status: 400, code: 'invalid_request', param: 'tools' });
  await remove(world, 'ray');
  await put(world, 'other', { url: world.simulator.url });
  expect((await world.post('/v1/chat/completions', asked)).status).toBe(200);
});

test('prompts that begin alike meet one replica, and those of one session', async () => {
  const others = await Promise.all([simulator(), simulator(), simulator()]);
  const replicas = others.map(({ url }, index) => ({ id: `r${index}`, url, max_inflight: 4 }));
  for (const by of ['prefix', 'label'] as const) {
    const affinity = by === 'prefix' ? { by, prefix_bytes: 64 } : { by, label: 'session' };
    const pools = { mistral: { replicas, affinity } };
    const world = await newWorld({ config: { pools, models: { mistral: {} } } });
    const start = others.map((one) => one.state().completed);
    for (let turn = 0; turn < 6; turn++) {
      const system = {
        role: 'system',
        content: 'You are a botanist who answers at length. '.repeat(4),
      };
      const said = { role: 'user', content: by === 'prefix' ? `turn ${turn}` : `${turn} is said` };
      const messages = by === 'prefix' ? [system, said] : [said];
      const headers = { 'Sluice-Labels': 'session=s1' };
      const response = await world.post('/v1/chat/completions', { ...chat, messages }, { headers });
      expect(response.status).toBe(200);
    }
    const counts = others.map((one, index) => one.state().completed - (start[index] ?? 0));
    expect(counts.toSorted(), by).toEqual([0, 0, 6]);
  }
});

test('max_concurrency: auto is what the pool takes, for flows too', async () => {
  const policies = [
    {
      blueprint: 'concurrency-scheduling/base',
      policy: {
        policy_name: 'mistral',
        concurrency_scheduler: {
          max_concurrency: 'auto',
          concurrency_limiter: { max_inflight_duration: '60s' },
          selectors: [{ control_point: 'mistral-prompt' }],
        },
      },
    },
  ];
  const world = await newWorld({ config: { policies } });
  const limit = async () => {
    const { limits } = (await (await world.get('/v1/queues/mistral-prompt')).json()) as {
      limits: object[];
    };
    return limits;
  };
  const now = { key: 'mistral', auto: true, in_flight: 0, waiting: 0 };
  expect(await limit()).toEqual([{ ...now, limit: 8 }]);
  await put(world, 'more', { url: world.simulator.url, max_inflight: 3 });
  expect(await limit()).toEqual([{ ...now, limit: 11 }]);
  await world.post(`/v1/replicas/${world.config.domain}-1/drain`, {});
  const flow = () => world.post('/v1/flows', { control_point: 'mistral-prompt', timeout_ms: 200 });
  const flows = await Promise.all([flow(), flow(), flow(), flow()]);
  expect(flows.map(({ status }) => status).toSorted()).toEqual([200, 200, 200, 504]);
});
