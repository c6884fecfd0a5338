/** What makes a replica ready, what makes it not, and that the reason tells nothing of what it said. */
import type { RequestListener } from 'node:http';
import { expect, test } from 'vitest';
import { type Probe, type ProbeResult, probe } from '../../src/pool/index.ts';
import { clientWith, closedPort, replica, tcpServer } from './support.ts';

const get: Probe = { path: '/v1/models', timeout_ms: 15_000 };
const post: Probe = { ...get, post_data: '{"model":"m"}' };

async function probed(answer: RequestListener, how: Probe): Promise<ProbeResult> {
  return probe(clientWith(), { url: await replica(answer) }, how);
}

const saying =
  (body: string, status = 200): RequestListener =>
  (_, response) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(body);

test('it asks the path with GET, or with POST and the data as JSON, under the path of the URL', async () => {
  const asked: (string | undefined)[] = [];
  const url = await replica(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { method, url: path, headers } = request;
    asked.push(`${method} ${path} ${headers['content-type']} ${headers.authorization} ${body}`);
    response.end('{}');
  });
  const client = clientWith({ c: { bearer: 'token' } });
  const target = { url: `${url}/base/`, credentials: 'c' };
  expect(await probe(client, target, get)).toEqual({ ok: true });
  expect(await probe(client, target, post)).toEqual({ ok: true });
  expect(asked).toEqual([
    'GET /base/v1/models undefined Bearer token ',
    'POST /base/v1/models application/json Bearer token {"model":"m"}',
  ]);
});

test('ready is who answers 200, and to a POST with something that reports no error', async () => {
  for (const body of ['', '{"error":"hush"}', 'text']) {
    expect(await probed(saying(body), get), body).toEqual({ ok: true });
  }
  for (const body of ['{}', '[1]', '{"error":null}', '{"choices":[{"error":1}]}', 'text', 'null']) {
    expect(await probed(saying(body), post), body).toEqual({ ok: true });
  }
});

test('not ready is every other status, and to a POST an empty answer, or an error in it', async () => {
  for (const status of [201, 204, 302, 400, 401, 404, 429, 500, 503]) {
    const reason = `answered ${status}`;
    expect(await probed(saying(status === 204 ? '' : 'hush', status), get)).toEqual({
      ok: false,
      reason,
    });
  }
  expect(await probed(saying(''), post)).toEqual({ ok: false, reason: 'answered nothing' });
  for (const body of ['{"error":{"message":"hush"}}', '{"error":"hush","x":1}']) {
    expect(await probed(saying(body), post)).toEqual({ ok: false, reason: 'reported an error' });
  }
});

test('not ready is who does not answer in time, with a status or with all of it', async () => {
  const soon = { ...get, timeout_ms: 50 };
  const late = { ok: false, reason: 'no answer within 50 ms' };
  expect(await probed(() => {}, soon)).toEqual(late);
  const half: RequestListener = (_, response) => {
    response.write('half');
  };
  expect(await probed(half, soon)).toEqual(late);
  // Before its answer there is a connection, which has no end either.
  const silent = await tcpServer(() => {});
  expect(await probe(clientWith(), { url: `http://127.0.0.1:${silent}` }, soon)).toEqual(late);
});

test('an answer without an end is read no further than a MiB, and is an answer', async () => {
  let closed: () => void = () => {};
  const isClosed = new Promise<void>((resolve) => {
    closed = resolve;
  });
  const endless: RequestListener = (_, response) => {
    const more = () => {
      while (!response.destroyed && response.write('x'.repeat(64 * 1024)));
    };
    response.on('drain', more).on('close', closed);
    more();
  };
  expect(await probed(endless, post)).toEqual({ ok: true });
  await isClosed;
});

test('what is not reached, breaks off or has no credentials here is named by its code', async () => {
  const client = clientWith({});
  const refused = { url: `http://127.0.0.1:${await closedPort()}` };
  expect(await probe(client, refused, get)).toEqual({ ok: false, reason: 'ECONNREFUSED' });
  const noHttp = await tcpServer((socket) => socket.end('hush\r\n\r\n'));
  const odd = await probe(client, { url: `http://127.0.0.1:${noHttp}` }, get);
  expect(odd).toEqual({ ok: false, reason: 'HTTPParserError' });
  const broken: RequestListener = (_, response) => {
    response.writeHead(200, { 'content-length': '10' });
    response.write('hush', () => response.destroy());
  };
  expect(await probed(broken, get)).toEqual({ ok: false, reason: 'UND_ERR_SOCKET' });
  expect(await probe(client, { ...refused, credentials: 'x' }, get)).toEqual({
    ok: false,
    reason: 'this process has no credentials named x',
  });
  expect(await probe(client, { url: 'no url' }, get)).toEqual({
    ok: false,
    reason: 'ERR_INVALID_URL',
  });
});

test('who gives it up gets an answer too, before it began and while it waits', async () => {
  const controller = new AbortController();
  const url = await replica(() => controller.abort());
  const givenUp = { ok: false, reason: 'given up' };
  expect(await probe(clientWith(), { url }, get, controller.signal)).toEqual(givenUp);
  expect(controller.signal.aborted).toBe(true);
  expect(await probe(clientWith(), { url }, get, controller.signal)).toEqual(givenUp);
});
