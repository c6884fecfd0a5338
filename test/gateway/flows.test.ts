/** Flows over HTTP: whoever does the work itself, between start and end. */
import { describe, expect, test } from 'vitest';
import { ownRedis } from './own-redis.ts';
import { slotValues } from './policies.ts';
import { eventually, newWorld, policyValues, type World } from './world.ts';

interface Flow {
  readonly id: string;
  readonly state: string;
  readonly lease_ms: number;
  readonly limited: boolean;
}

const point = 'mistral-prompt';

async function start(world: World, body: object = {}, init: RequestInit = {}): Promise<Flow> {
  const answer = await world.post('/v1/flows', { control_point: point, ...body }, init);
  expect(answer.status).toBe(200);
  return (await answer.json()) as Flow;
}

async function end(world: World, id: string, body?: object): Promise<unknown> {
  const answer = await world.post(`/v1/flows/${id}/end`, body ?? '');
  expect(answer.status).toBe(200);
  return answer.json();
}

async function codeOf(answer: Response): Promise<{ status: number; code: string; param: string }> {
  const { error } = (await answer.json()) as { error: { code: string; param: string } };
  return { status: answer.status, code: error.code, param: error.param };
}

const waiting = (count: number) => (view: { waiting: number }) => view.waiting === count;

test('a flow is admitted, kept and ended, and its end may be repeated', async () => {
  const world = await newWorld({ max: 1, worker: false });
  const flow = await start(world);
  expect(flow).toEqual({ id: flow.id, state: 'admitted', lease_ms: 60_000, limited: true });
  expect((await world.view()).inFlight).toEqual({ mistral: 1 });
  expect(await end(world, flow.id, { status: 'ok', tokens: 12 })).toEqual({
    id: flow.id,
    state: 'done',
  });
  await world.idle();
  expect(await end(world, flow.id, { status: 'error' })).toMatchObject({ state: 'done' });
  const failed = await start(world);
  expect(await end(world, failed.id, { status: 'error' })).toMatchObject({ state: 'failed' });
  expect(await end(world, failed.id)).toMatchObject({ state: 'failed' });
  await world.idle();
});

test('a control point without a policy admits flows and says that nothing limits them', async () => {
  const world = await newWorld({ max: 1, worker: false });
  const flows = await Promise.all(
    [1, 2, 3].map(() => start(world, { control_point: 'my other: point' })),
  );
  expect(flows.map(({ limited }) => limited)).toEqual([false, false, false]);
  for (const { id } of flows) expect(await end(world, id)).toMatchObject({ state: 'done' });
  await world.idle();
});

test('what waits is admitted in the fair order, by the step that ends another', async () => {
  const world = await newWorld({ max: 1, worker: false });
  const first = await start(world);
  const order: string[] = [];
  const flows: Promise<unknown>[] = [];
  for (const [name, priority] of [
    ['open', '1'],
    ['paid', '5'],
  ] as const) {
    const labels = { workload: name, priority };
    const flow = start(world, { labels, tokens: 10 }).then(async ({ id }) => {
      order.push(name);
      await end(world, id);
    });
    flows.push(flow);
    await world.until(waiting(flows.length));
  }
  await end(world, first.id);
  await Promise.all(flows);
  expect(order).toEqual(['paid', 'open']);
  await world.idle();
});

test('past its time in the queue a flow is rejected, with the status of its policy', async () => {
  const denied = slotValues({
    name: 'denied',
    controlPoint: 'denied',
    max: 1,
    scheduler: { denied_response_status_code: 418 },
  });
  const world = await newWorld({
    worker: false,
    config: { policies: [policyValues(1), denied] },
  });
  for (const [control_point, status] of [
    [point, 504],
    ['denied', 418],
  ] as const) {
    await start(world, { control_point });
    const answer = await world.post('/v1/flows', { control_point, timeout_ms: 50 });
    expect(answer.headers.get('retry-after')).toBe('1');
    expect(answer.headers.get('sluice-request-id')).toMatch(/^t\d+-/);
    expect(await codeOf(answer)).toMatchObject({ status, code: 'queue_timeout' });
  }
  const header = await world.post(
    '/v1/flows',
    { control_point: point },
    { headers: { 'sluice-timeout-ms': '20' } },
  );
  expect(await codeOf(header)).toMatchObject({ status: 504, code: 'queue_timeout' });
});

test('a flow whose client goes away leaves the queue, or gives its slot back', async () => {
  const world = await newWorld({ max: 1, worker: false });
  const first = await start(world);
  const gone = new AbortController();
  const left = start(world, {}, { signal: gone.signal }).catch(() => 'left');
  await world.until(waiting(1));
  gone.abort();
  expect(await left).toBe('left');
  await world.until(waiting(0));
  await end(world, first.id);
  await world.idle();
});

test('a client that leaves while Redis is away leaves the queue when that is back', async () => {
  const server = await ownRedis(true);
  const world = await newWorld({ max: 1, worker: false, redisUrl: server.url });
  const first = await start(world);
  const gone = new AbortController();
  const left = start(world, {}, { signal: gone.signal }).catch(() => 'left');
  await world.until(waiting(1));
  await server.stop();
  gone.abort();
  expect(await left).toBe('left');
  // Until it has given up to tell Redis.
  await expect.poll(() => world.log(), { timeout: 20_000 }).toContain('reading again');
  await server.startAgain();
  await world.until(waiting(0));
  expect(await end(world, first.id)).toMatchObject({ state: 'done' });
  await world.idle();
}, 60_000);

test('flows that wait hear of it when Redis comes back without them', async () => {
  const server = await ownRedis(false);
  const world = await newWorld({ max: 1, worker: false, redisUrl: server.url });
  await start(world);
  const waits = world.post('/v1/flows', { control_point: point });
  await world.until(waiting(1));
  await server.stop();
  await server.startAgain();
  expect(await codeOf(await waits)).toMatchObject({ status: 503, code: 'unavailable' });
}, 60_000);

describe('heartbeats', () => {
  const config = { timeouts: { heartbeat_ms: 300, sweep_ms: 50 } };

  test('a flow that promised some and sends none frees its slot', async () => {
    const world = await newWorld({ max: 1, worker: false, config });
    const silent = await start(world, { heartbeat: true });
    expect(silent.lease_ms).toBeGreaterThan(200);
    expect(silent.lease_ms).toBeLessThanOrEqual(300);
    const next = await start(world);
    const over = await world.post(`/v1/flows/${silent.id}/heartbeat`, '');
    expect(await codeOf(over)).toMatchObject({ status: 409, code: 'flow_over' });
    expect(await end(world, silent.id)).toMatchObject({ state: 'expired' });
    // The one without keeps its slot for the whole max inflight duration.
    expect(next.lease_ms).toBeGreaterThan(50_000);
    expect(await end(world, next.id)).toMatchObject({ state: 'done' });
  });

  test('a flow that sends them in time is kept; the first one opts in', async () => {
    const world = await newWorld({ max: 1, worker: false, config });
    const { id } = await start(world);
    for (let beats = 0; beats < 3; beats++) {
      const answer = await world.post(`/v1/flows/${id}/heartbeat`, '');
      expect(await answer.json()).toEqual({ id, state: 'admitted', lease_ms: 300 });
    }
    await eventually(async () => {
      const { ended } = await world.admission.inspectRequest(id);
      return ended?.state === 'expired';
    });
    const answer = await world.post(`/v1/flows/${id}/heartbeat`, '');
    expect(await answer.text()).toContain('its heartbeat stopped');
  });
});

test('another gateway keeps and ends it, and a gateway that stops leaves it alone', async () => {
  const world = await newWorld({ max: 1, worker: false });
  const other = await world.startAnother();
  const flow = await start(world);
  const waits = world.post('/v1/flows', { control_point: point });
  await world.until(waiting(1));
  await world.stopGateway();
  expect(await codeOf(await waits)).toMatchObject({ status: 503, code: 'unavailable' });
  await world.until(waiting(0));
  const kept = await fetch(`${other}/v1/flows/${flow.id}/heartbeat`, { method: 'POST' });
  expect(await kept.json()).toMatchObject({ state: 'admitted' });
  const ended = await fetch(`${other}/v1/flows/${flow.id}/end`, { method: 'POST' });
  expect(await ended.json()).toEqual({ id: flow.id, state: 'done' });
  await world.idle();
});

test('a flow is that of its API key, whose labels win', async () => {
  const keys = [
    { key: 'a', labels: { user_id: 'a' } },
    { key: 'b', labels: { user_id: 'b' } },
    { key: 'root', admin: true },
  ];
  const one = slotValues({ max: 9, perLabel: { user_id: 1 } });
  const world = await newWorld({ worker: false, config: { policies: [one], api_keys: keys } });
  const as = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });
  expect((await world.post('/v1/flows', { control_point: point })).status).toBe(401);
  const flow = await start(world, { labels: { user_id: 'b' } }, as('a'));
  // The label was a's own: b still has its slot.
  await start(world, {}, as('b'));
  for (const path of ['heartbeat', 'end']) {
    const answer = await world.post(`/v1/flows/${flow.id}/${path}`, '', as('b'));
    expect(await codeOf(answer)).toMatchObject({ status: 404, code: 'unknown_flow' });
  }
  const ended = await world.post(`/v1/flows/${flow.id}/end`, '', as('root'));
  expect(await ended.json()).toMatchObject({ state: 'done' });
});

test('what is no flow is not found', async () => {
  const world = await newWorld({ worker: false });
  const body = { path: '/api/generate', body: { prompt: 'x' } };
  const job = (await (await world.post('/v1/jobs', body)).json()) as { id: string };
  for (const id of [job.id, `${world.config.domain}-none`, 'x', '%00']) {
    for (const path of ['heartbeat', 'end']) {
      const answer = await world.post(`/v1/flows/${id}/${path}`, '');
      expect(await codeOf(answer)).toMatchObject({ status: 404, code: 'unknown_flow' });
    }
  }
  expect(await world.admission.inspectRequest(job.id)).toHaveProperty('request');
});

describe('what is wrong is named, and nothing is taken in', async () => {
  const cases: [string, object | string, string][] = [
    ['no body', '', 'the body'],
    ['no object', '[]', 'the body'],
    ['no control point', {}, 'control_point'],
    ['an empty one', { control_point: '' }, 'control_point'],
    ['one with a line break', { control_point: 'a\nb' }, 'control_point'],
    ['an unknown field', { control_point: point, lables: {} }, 'lables'],
    ['labels that are no texts', { control_point: point, labels: { a: 1 } }, 'labels.a'],
    ['a priority', { control_point: point, labels: { priority: 'NaN' } }, 'labels.priority'],
    ['tokens', { control_point: point, tokens: -1 }, 'tokens'],
    ['tokens as a text', { control_point: point, tokens: '5' }, 'tokens'],
    ['a timeout', { control_point: point, timeout_ms: 0 }, 'timeout_ms'],
    ['a heartbeat', { control_point: point, heartbeat: 1 }, 'heartbeat'],
  ];
  test.for(cases)('%s', async ([, body, param]) => {
    const world = await newWorld({ worker: false });
    expect(await codeOf(await world.post('/v1/flows', body))).toEqual({
      status: 400,
      code: 'invalid_request',
      param,
    });
    await world.idle();
  });

  test('at the end', async () => {
    const world = await newWorld({ worker: false });
    const { id } = await start(world);
    for (const [body, param] of [
      [{ status: 'well' }, 'status'],
      [{ tokens: 1e9 }, 'tokens'],
      [{ token: 1 }, 'token'],
    ] as const) {
      const answer = await world.post(`/v1/flows/${id}/end`, body);
      expect(await codeOf(answer)).toMatchObject({ status: 400, param });
    }
    expect(await end(world, id)).toMatchObject({ state: 'done' });
  });
});
