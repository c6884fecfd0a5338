/**
 * The npm package @fluxninja/aperture-js 2.5.0, as it is. It takes every gRPC error, a missed deadline
 * included, for "run": whatever Sluice refuses has to come as an answer, in time.
 */
import { type Flow, FlowStatus } from '@fluxninja/aperture-js';
import { describe, expect, test } from 'vitest';
import { ownRedis } from '../gateway/own-redis.ts';
import { limitValues, rateValues, slotValues } from '../gateway/policies.ts';
import { newWorld, type World } from '../gateway/world.ts';
import { certificate, sdk } from './support.ts';

const point = 'mistral-prompt';
const idLabel = 'sluice.request_id';
const within = (ms: number) => ({ grpcCallOptions: { deadline: Date.now() + ms } });

/** What the SDK makes of an answer. */
function seen(flow: Flow) {
  const { telemetryFlowLabels = {} } = flow.checkResponse() ?? {};
  return {
    runs: flow.shouldRun(),
    error: flow.error(),
    status: flow.httpResponseCode(),
    code: telemetryFlowLabels['sluice.code'],
  };
}

const waiting = (count: number) => (view: { waiting: number }) => view.waiting === count;

async function stateOf(world: World, flow: Flow): Promise<string | undefined> {
  const id = flow.checkResponse()?.telemetryFlowLabels?.[idLabel] ?? '';
  const { request, ended } = await world.admission.inspectRequest(id);
  return request?.state ?? ended?.state;
}

test('a flow runs, and its end, told by a span, admits who waits', async () => {
  const world = await newWorld({ max: 1, worker: false });
  const client = sdk(world.grpcAddress);
  const first = await client.startFlow(point, { labels: { user_id: 'a' }, ...within(9_000) });
  expect(seen(first)).toEqual({ runs: true, error: null, status: 200, code: undefined });
  const second = client.startFlow(point, { ...within(20_000) });
  await world.until(waiting(1));
  first.end();
  expect((await second).shouldRun()).toBe(true);
  expect(await stateOf(world, first)).toBe('done');
  const ended = await second;
  ended.setStatus(FlowStatus.Error);
  ended.end();
  ended.end();
  await world.idle();
  expect(await stateOf(world, ended)).toBe('failed');
});

test('a flow whose end is missed frees its slot at max_inflight_duration', async () => {
  const values = slotValues({ max: 1 }) as unknown as {
    policy: { concurrency_scheduler: { concurrency_limiter: object } };
  };
  values.policy.concurrency_scheduler.concurrency_limiter = { max_inflight_duration: '400ms' };
  const world = await newWorld({ worker: false, config: { policies: [values] } });
  const client = sdk(world.grpcAddress);
  const forgotten = await client.startFlow(point, within(9_000));
  const next = await client.startFlow(point, within(9_000));
  expect(next.shouldRun()).toBe(true);
  expect(await stateOf(world, forgotten)).toBe('expired');
  // Its end comes too late, and changes nothing.
  forgotten.end();
  next.end();
  await world.idle();
  expect(await stateOf(world, forgotten)).toBe('expired');
});

describe('a flow that may not run is answered, and does not', () => {
  const soon = { default_workload_parameters: { queue_timeout: '100ms' } };
  const denied = { denied_response_status_code: 429 };
  const cases: [string, object[], { status: number; code: string }][] = [
    [
      'its turn does not come in time',
      [slotValues({ max: 1, scheduler: soon })],
      { status: 503, code: 'queue_timeout' },
    ],
    [
      'with the status of its policy',
      [slotValues({ max: 1, scheduler: { ...soon, ...denied } })],
      { status: 429, code: 'queue_timeout' },
    ],
    [
      'nobody may wait',
      [slotValues({ max: 1, scheduler: { max_queue_length: 0 } })],
      { status: 503, code: 'queue_full' },
    ],
    [
      'a rate limit is used up',
      [rateValues({ capacity: 1, fill: 1, interval: '60s' })],
      { status: 429, code: 'rate_limited' },
    ],
    ['a limit is full', [limitValues({ max: 1 })], { status: 429, code: 'rate_limited' }],
  ];
  test.for(cases)('%s', async ([, policies, expected]) => {
    const world = await newWorld({ worker: false, config: { policies } });
    const client = sdk(world.grpcAddress);
    expect((await client.startFlow(point, within(9_000))).shouldRun()).toBe(true);
    const flow = await client.startFlow(point, within(20_000));
    expect(seen(flow)).toEqual({ runs: false, error: null, ...expected });
    expect(Number(flow.retryAfter().seconds)).toBeGreaterThan(0);
    await world.until(waiting(0));
  });

  test('before its own deadline, where that is the first to end', async () => {
    const world = await newWorld({ max: 1, worker: false });
    const client = sdk(world.grpcAddress);
    expect(seen(await client.startFlow(point, within(9_000)))).toMatchObject({ runs: true });
    const flow = await client.startFlow(point, within(3_000));
    expect(seen(flow)).toMatchObject({ runs: false, error: null, code: 'queue_timeout' });
    await world.until(waiting(0));
  });

  test('without a deadline, when the queue timeout of the policy is over', async () => {
    const scheduler = { default_workload_parameters: { queue_timeout: '500ms' } };
    const config = { policies: [slotValues({ max: 1, scheduler })] };
    const world = await newWorld({ worker: false, config });
    const client = sdk(world.grpcAddress);
    const first = await client.startFlow(point, {});
    const flow = client.startFlow(point, {});
    await world.until(waiting(1));
    expect(seen(await flow)).toMatchObject({ runs: false, code: 'queue_timeout' });
    const patient = client.startFlow(point, {});
    first.end();
    expect((await patient).shouldRun()).toBe(true);
  });

  test('a label or a control point that is wrong, by name', async () => {
    const world = await newWorld({ worker: false });
    const client = sdk(world.grpcAddress);
    for (const [controlPoint, labels, name] of [
      [point, { priority: 'NaN' }, 'labels.priority'],
      [point, { priority: '-1' }, 'labels.priority'],
      [point, { tokens: 'many' }, 'labels.tokens'],
      [point, { user_id: 'x'.repeat(2_000) }, 'label user_id is longer'],
      [point, { user_id: 'a\u0000b' }, 'label user_id holds control characters'],
      ['', {}, 'a control point'],
      ['a\nb', {}, 'a control point'],
    ] as const) {
      const flow = await client.startFlow(controlPoint, { labels, ...within(5_000) });
      const expected = { runs: false, error: null, status: 400, code: 'invalid_request' };
      expect(seen(flow)).toEqual(expected);
      const said = flow.checkResponse()?.telemetryFlowLabels?.['sluice.message'];
      expect(said?.replaceAll('"', '')).toContain(name);
    }
    await world.idle();
  });

  test('its gateway stops while it waits', async () => {
    const world = await newWorld({ max: 1, worker: false });
    const client = sdk(world.grpcAddress);
    await client.startFlow(point, within(30_000));
    const waits = [1, 2].map(() => client.startFlow(point, within(30_000)));
    await world.until(waiting(2));
    await world.stopGateway();
    const flows = await Promise.all(waits);
    for (const flow of flows) {
      expect(seen(flow)).toEqual({ runs: false, error: null, status: 503, code: 'unavailable' });
      expect(flow.retryAfter().seconds).toBe('1');
    }
    const ids = flows.map((flow) => flow.checkResponse()?.telemetryFlowLabels?.[idLabel]);
    expect(new Set(ids).size).toBe(2);
    await world.until(waiting(0));
  });

  test('Redis goes away while it waits, or is away when it comes', async () => {
    const server = await ownRedis(true);
    const world = await newWorld({ max: 1, worker: false, redisUrl: server.url });
    const client = sdk(world.grpcAddress);
    await client.startFlow(point, within(30_000));
    const waits = client.startFlow(point, within(3_000));
    await world.until(waiting(1));
    await server.stop();
    expect(seen(await waits)).toMatchObject({ runs: false, error: null, status: 503 });
    for (const more of [{}, { resultCacheKey: 'sky' }]) {
      const late = await client.startFlow(point, { ...more, ...within(3_000) });
      expect(seen(late)).toMatchObject({ runs: false, error: null, status: 503 });
    }
  });
});

test('flows that hold no slot leave nothing behind: nobody tells of their end', async () => {
  const rate = rateValues({ capacity: 5, fill: 1, interval: '60s' });
  const world = await newWorld({ worker: false, config: { policies: [rate] } });
  const client = sdk(world.grpcAddress);
  for (const controlPoint of [point, 'no policy has this']) {
    const flow = await client.startFlow(controlPoint, within(9_000));
    expect(seen(flow)).toMatchObject({ runs: true, code: undefined });
    await world.idle();
  }
});

describe('API keys', () => {
  const api_keys = [
    { key: 'a', labels: { user_id: 'a' } },
    { key: 'b', labels: { user_id: 'b' } },
  ];

  async function secured() {
    const { ca, certFile, keyFile } = await certificate();
    const policies = [slotValues({ max: 9, perLabel: { user_id: 1 } })];
    const tls = { grpc_tls_cert: certFile, grpc_tls_key: keyFile };
    const world = await newWorld({ worker: false, config: { policies, api_keys, ...tls } });
    return { world, ca, address: world.grpcAddress.replace('127.0.0.1', 'localhost') };
  }

  test('the label of the key wins, and its flow is ended by it alone', async () => {
    const { world, ca, address } = await secured();
    const [a, b] = ['a', 'b'].map((apiKey) => sdk(address, { apiKey, ca }));
    const flow = await a?.startFlow(point, { labels: { user_id: 'b' }, ...within(9_000) });
    expect(flow?.shouldRun()).toBe(true);
    // The first was a's, whatever it said: b has its slot still, and a has none.
    const other = await b?.startFlow(point, within(9_000));
    expect(other?.shouldRun()).toBe(true);
    expect((await a?.startFlow(point, within(2_000)))?.shouldRun()).toBe(false);
    flow?.end();
    other?.end();
    await world.idle();
  });

  test('without a valid key a flow does not run, and is told why', async () => {
    const { world, ca, address } = await secured();
    for (const client of [sdk(address, { ca }), sdk(address, { ca, apiKey: 'c' })]) {
      const flow = await client.startFlow(point, within(9_000));
      const expected = { runs: false, error: null, status: 401, code: 'unauthorized' };
      expect(seen(flow)).toEqual(expected);
    }
    await world.idle();
  });

  test('a plaintext client finds no way in where TLS is', async () => {
    const { world, address } = await secured();
    const flow = await sdk(address).startFlow(point, within(1_000));
    expect(flow.checkResponse()).toBeNull();
    await world.idle();
  });
});
