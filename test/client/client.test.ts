/** The client's side of flows: what it sends, how it fails, when it repeats, and that it ends. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { FlowRejectedError, SluiceClient, SluiceClientError } from '../../src/client/index.ts';
import { admitted, done, type FakeGateway, fakeGateway, refused } from './fake-gateway.ts';

const start = 'POST /v1/flows';
const end = 'POST /v1/flows/main-1/end';
const heartbeat = 'POST /v1/flows/main-1/heartbeat';

/** Admits everybody and ends everything. */
const kind = () => fakeGateway(({ what }) => (what === start ? admitted() : done));
const failureOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error) => error,
  );

test('a flow is asked for in the words of the API, and ended once', async () => {
  const gateway = await kind();
  const sluice = new SluiceClient({ url: `${gateway.url}/`, apiKey: 'a-key' });
  const labels = { user_id: 'u1', 'name with ü': 'v' };
  const options = { labels, timeoutMs: 500, tokens: 12 };
  const flow = await sluice.startFlow('mistral-prompt', options);
  expect(flow).toMatchObject({ id: 'main-1', limited: true, leaseMs: 60_000 });
  const ending = flow.end({ tokens: 7, status: 'ok' });
  expect(flow.end()).toBe(ending);
  expect(await ending).toEqual({ id: 'main-1', state: 'done' });
  await flow[Symbol.asyncDispose]();
  expect(gateway.asked.map(({ what, body }) => [what, body])).toEqual([
    [
      start,
      {
        control_point: 'mistral-prompt',
        labels,
        timeout_ms: 500,
        tokens: 12,
        heartbeat: false,
      },
    ],
    [end, { tokens: 7, status: 'ok' }],
  ]);
  for (const { headers } of gateway.asked) expect(headers.authorization).toBe('Bearer a-key');
});

test('what was not said is not sent, and without a key there is no header', async () => {
  const gateway = await kind();
  const flow = await new SluiceClient({ url: gateway.url, apiKey: '' }).startFlow('a');
  await flow.end();
  expect(gateway.asked[0]?.body).toEqual({ control_point: 'a', heartbeat: false });
  expect(gateway.asked[1]?.body).toEqual({});
  expect(gateway.asked[0]?.headers.authorization).toBeUndefined();
});

test('a gateway behind a path, another fetch, and URLs that are none', async () => {
  const asked: string[] = [];
  const sluice = new SluiceClient({
    url: 'https://example.com/sluice/',
    fetch: async (url, { method }) => {
      asked.push(`${method} ${url}`);
      return Response.json({ id: 'main-1', lease_ms: 1_000, limited: false });
    },
  });
  expect(await sluice.startFlow('a')).toMatchObject({ id: 'main-1', limited: false });
  expect(asked).toEqual(['POST https://example.com/sluice/v1/flows']);
  for (const url of ['', 'localhost:8080', 'ftp://example.com', 'http://u:p@example.com']) {
    expect(() => new SluiceClient({ url }), url).toThrow(TypeError);
  }
});

test('who is turned away is told by which code, with what status, and when to try again', async () => {
  const gateway = await fakeGateway(() => refused(429, 'queue_full', { 'retry-after-ms': '1500' }));
  const failure = await failureOf(new SluiceClient(gateway).startFlow('a'));
  expect(failure).toBeInstanceOf(FlowRejectedError);
  expect(failure).toMatchObject({
    code: 'queue_full',
    message: 'it says queue_full',
    status: 429,
    retryAfterMs: 1_500,
  });
  // A policy may give its own status; the code stays.
  const own = await fakeGateway(() => refused(418, 'queue_timeout'));
  const denied = await failureOf(new SluiceClient(own).startFlow('a'));
  expect(denied).toBeInstanceOf(FlowRejectedError);
  expect(denied).toMatchObject({ code: 'queue_timeout', status: 418, retryAfterMs: undefined });
});

test('what is wrong with the call, or with who answers it, is no rejection', async () => {
  const answers = {
    invalid_request: refused(400, 'invalid_request'),
    unauthorized: refused(401, 'unauthorized'),
    not_a_gateway: { status: 200, body: '<html>', headers: { 'content-type': 'text/html' } },
  };
  for (const [code, answer] of Object.entries(answers)) {
    const gateway = await fakeGateway(() => answer);
    const failure = await failureOf(new SluiceClient(gateway).startFlow('a'));
    expect(failure).toBeInstanceOf(SluiceClientError);
    expect(failure).not.toBeInstanceOf(FlowRejectedError);
    expect(failure).toMatchObject({ code });
  }
  const noLease = await fakeGateway(() => admitted({ lease_ms: undefined }));
  const failure = await failureOf(new SluiceClient(noLease).startFlow('a'));
  expect(failure).toMatchObject({ code: 'not_a_gateway' });
});

test('where nobody answers the URL and the reason are told', async () => {
  const url = await closedUrl();
  const failure = await failureOf(new SluiceClient({ url }).startFlow('a'));
  expect(failure).toMatchObject({ code: 'unreachable', status: undefined });
  expect(String(failure)).toContain(`cannot reach ${url} (connection refused)`);
});

test('giving up the wait closes the connection, with the reason of the signal', async () => {
  const gateway = await fakeGateway(() => 'wait');
  const leaving = new AbortController();
  const waiting = new SluiceClient(gateway).startFlow('a', { signal: leaving.signal });
  await until(() => gateway.asked.length === 1);
  const [{ response } = {}] = gateway.asked;
  const closed = response && once(response, 'close');
  leaving.abort(new Error('changed my mind'));
  expect(await failureOf(waiting)).toMatchObject({ message: 'changed my mind' });
  await closed;
  const late = new SluiceClient(gateway).startFlow('a', { signal: leaving.signal });
  expect(await failureOf(late)).toMatchObject({ message: 'changed my mind' });
  expect(gateway.asked).toHaveLength(1);
});

test('a flow that is admitted as its caller leaves is ended', async () => {
  const gateway = await kind();
  const leaving = new AbortController();
  const sluice = new SluiceClient({
    url: gateway.url,
    fetch: async (url, init) => {
      // As if the answer had been read just before the signal.
      const { signal: _, ...rest } = init;
      const response = await fetch(url, rest);
      if (url.endsWith('/v1/flows')) leaving.abort(new Error('too late'));
      return response;
    },
  });
  const failure = await failureOf(sluice.startFlow('a', { signal: leaving.signal }));
  expect(failure).toMatchObject({ message: 'too late' });
  expect(gateway.whats()).toEqual([start, end]);
});

test('an end that does not arrive, or meets a gateway without Redis, is sent again', async () => {
  const gateway = await fakeGateway(({ what }, before) => {
    if (what === start) return admitted();
    return before === 0 ? 'break' : before === 1 ? refused(503, 'unavailable') : done;
  });
  const flow = await new SluiceClient(gateway).startFlow('a');
  expect(await flow.end({ tokens: 5 })).toEqual({ id: 'main-1', state: 'done' });
  expect(gateway.whats()).toEqual([start, end, end, end]);
  expect(gateway.asked.slice(1).map(({ body }) => body)).toEqual(
    Array.from({ length: 3 }, () => ({ tokens: 5 })),
  );
});

test('an end that is refused is not sent again, and may be tried anew', async () => {
  const gateway = await fakeGateway(({ what }, before) => {
    if (what === start) return admitted();
    return before === 0 ? refused(400, 'invalid_request') : done;
  });
  const flow = await new SluiceClient(gateway).startFlow('a');
  expect(await failureOf(flow.end({ tokens: -1 }))).toMatchObject({ code: 'invalid_request' });
  expect(gateway.whats()).toEqual([start, end]);
  expect(await flow.end()).toMatchObject({ state: 'done' });
});

test('an end that never arrives is given up after four tries', async () => {
  const gateway = await fakeGateway(({ what }) => (what === start ? admitted() : 'break'));
  const sluice = new SluiceClient(gateway);
  const flow = await sluice.startFlow('a');
  const [result, failure, ownFailure] = await Promise.all([
    sluice.withFlow('a', {}, () => 'result'),
    failureOf(flow.end()),
    failureOf(sluice.withFlow('a', {}, () => Promise.reject(new Error('of the work')))),
  ]);
  expect(failure).toMatchObject({ code: 'unreachable' });
  // What the work returns or throws counts all the same.
  expect(result).toBe('result');
  expect(ownFailure).toMatchObject({ message: 'of the work' });
  expect(gateway.whats().filter((what) => what === end)).toHaveLength(3 * 4);
});

test('withFlow ends what it started: ok when the work succeeds, error when it throws', async () => {
  const gateway = await kind();
  const sluice = new SluiceClient(gateway);
  const result = await sluice.withFlow('a', { tokens: 3 }, async ({ id }) => `done by ${id}`);
  expect(result).toBe('done by main-1');
  const failing = sluice.withFlow('a', {}, async () => Promise.reject(new Error('of the work')));
  expect(await failureOf(failing)).toMatchObject({ message: 'of the work' });
  // The work may end it itself, and say what it cost.
  await sluice.withFlow('a', {}, (flow) => flow.end({ tokens: 9 }));
  const ends = gateway.asked.filter(({ what }) => what === end).map(({ body }) => body);
  expect(ends).toEqual([{ status: 'ok' }, { status: 'error' }, { tokens: 9 }]);
});

test('heartbeats go out at a third of the lease, past one that is lost, until the end', async () => {
  const gateway = await fakeGateway(({ what }, before) => {
    if (what === start) return admitted({ lease_ms: 300 });
    if (what === end) return done;
    return before === 1 ? 'break' : admitted({ lease_ms: before < 3 ? 300 : 30 });
  });
  const sluice = new SluiceClient(gateway);
  const startedMs = performance.now();
  const flow = await sluice.startFlow('a', { heartbeat: true });
  expect(gateway.asked[0]?.body).toMatchObject({ heartbeat: true });
  await until(() => beats(gateway) >= 4);
  // Four thirds of a lease: sooner would be too many, whatever the machine does.
  expect(performance.now() - startedMs).toBeGreaterThan(390);
  // The lease of the last answer counts.
  await until(() => beats(gateway) >= 10);
  expect(flow.leaseMs).toBe(30);
  expect(flow.signal.aborted).toBe(false);
  await flow.end();
  const before = beats(gateway);
  await new Promise((resolve) => setTimeout(resolve, 100));
  // One may have been on its way.
  expect(beats(gateway)).toBeLessThanOrEqual(before + 1);
  expect(flow.signal.aborted).toBe(false);
});

test('a flow that ends at once has no heartbeat', async () => {
  const gateway = await fakeGateway(({ what }) =>
    what === end ? done : admitted({ lease_ms: 60 }),
  );
  const flow = await new SluiceClient(gateway).startFlow('a', { heartbeat: true });
  await flow.end();
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(gateway.whats()).toEqual([start, end]);
});

test('a flow that the gateway has ended says so to the work, and sends no more', async () => {
  for (const [status, code] of [[409, 'flow_over'] as const, [404, 'unknown_flow'] as const]) {
    const gateway = await fakeGateway(({ what }) => {
      // A heartbeat has a third of that to be answered, on a busy machine too.
      if (what === start) return admitted({ lease_ms: 1_500 });
      return what === heartbeat ? refused(status, code) : done;
    });
    const options = { heartbeat: true };
    const work = new SluiceClient(gateway).withFlow('a', options, async ({ signal }) => {
      await once(signal, 'abort');
      throw signal.reason;
    });
    const failure = await failureOf(work);
    expect(failure).toBeInstanceOf(SluiceClientError);
    expect(failure).toMatchObject({ code, status });
    expect(gateway.whats()).toEqual([start, heartbeat, end]);
  }
});

test('without being asked it sends no heartbeats; by hand they name the new lease', async () => {
  const gateway = await fakeGateway(({ what }) =>
    what === end ? done : admitted({ lease_ms: 20 }),
  );
  const sluice = new SluiceClient(gateway);
  await sluice.startFlow('a');
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(gateway.whats()).toEqual([start]);
  expect(await sluice.heartbeat('main-1')).toBe(20);
  expect(await sluice.endFlow('main-1', { status: 'error' })).toEqual({
    id: 'main-1',
    state: 'done',
  });
  expect(gateway.whats()).toEqual([start, heartbeat, end]);
  await sluice.endFlow('a/b?', {}).catch(() => {});
  expect(gateway.whats().at(-1)).toBe('POST /v1/flows/a%2Fb%3F/end');
});

async function until(condition: () => boolean): Promise<void> {
  await expect.poll(condition, { timeout: 10_000, interval: 5 }).toBe(true);
}

function beats(gateway: FakeGateway): number {
  return gateway.whats().filter((what) => what === heartbeat).length;
}

/** Of a port at which nobody listens any more. */
async function closedUrl(): Promise<string> {
  const server = createServer();
  onTestFinished(() => void server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}
