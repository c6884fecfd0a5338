/** Whether a prompt that failed may have reached its replica: only where it surely has not, it is not sent. */
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { ReplicaFailure, readText, tooLarge } from '../../src/pool/index.ts';
import { clientWith, closedPort, get, replica, tcpServer } from './support.ts';

async function failureAt(url: string): Promise<ReplicaFailure> {
  const failure = await get(clientWith(), url).catch((error: unknown) => error);
  if (!(failure instanceof ReplicaFailure)) throw new Error('it did not fail', { cause: failure });
  return failure;
}

test('a failure of our own counts as sent, unless it is said', () => {
  const failure = new ReplicaFailure('m', true);
  expect(failure).toMatchObject({ message: 'm', isDown: true, wasSent: true });
  expect(failure.httpStatus).toBeUndefined();
  expect(new ReplicaFailure('m', false, new Error('why'), { wasSent: false }).wasSent).toBe(false);
  expect(tooLarge(3).wasSent).toBe(true);
});

test('not sent: nobody listens, no such host, a host of both families where nobody listens', async () => {
  const port = await closedPort();
  for (const host of ['127.0.0.1', 'localhost']) {
    expect(await failureAt(`http://${host}:${port}`), host).toMatchObject({
      message: 'the replica failed: ECONNREFUSED',
      isDown: true,
      wasSent: false,
    });
  }
  // Too long for a label, so no server is asked for it.
  expect(await failureAt(`http://${'a'.repeat(64)}:${port}`)).toMatchObject({
    message: expect.stringMatching(/: (?:ENOTFOUND|EAI_AGAIN)$/),
    isDown: true,
    wasSent: false,
  });
});

test('not sent: a server that closes in place of a handshake, or speaks no TLS, or does not answer it', async () => {
  const closes = await tcpServer((socket) => socket.end());
  expect(await failureAt(`https://127.0.0.1:${closes}`)).toMatchObject({ wasSent: false });
  const plain = await replica((_, response) => response.end());
  expect(await failureAt(plain.replace('http:', 'https:'))).toMatchObject({ wasSent: false });
  const silent = await tcpServer(() => {});
  expect(await failureAt(`https://127.0.0.1:${silent}`)).toMatchObject({
    message: 'the replica failed: UND_ERR_CONNECT_TIMEOUT',
    isDown: true,
    wasSent: false,
  });
});

test('sent, perhaps: a connection that is closed or reset once there, and whatever is answered', async () => {
  const closes = await tcpServer((socket) => socket.once('data', () => socket.end()));
  expect(await failureAt(`http://127.0.0.1:${closes}`)).toMatchObject({ wasSent: true });
  const resets = await tcpServer((socket) => socket.once('data', () => socket.resetAndDestroy()));
  expect(await failureAt(`http://127.0.0.1:${resets}`)).toMatchObject({ wasSent: true });
  const refuses = await replica((_, response) => response.writeHead(503).end());
  expect(await failureAt(refuses)).toMatchObject({ isDown: true, wasSent: true, httpStatus: 503 });
  const breaks = await replica((_, response) => response.writeHead(500).end());
  expect(await failureAt(breaks)).toMatchObject({ isDown: false, wasSent: true, httpStatus: 500 });
});

test('sent: an answer that breaks off', async () => {
  const url = await replica((_, response) => {
    response.writeHead(200, { 'content-length': '10' });
    response.write('half', () => response.destroy());
  });
  const reply = await get(clientWith(), url);
  await expect(readText(reply, 100)).rejects.toMatchObject({ isDown: true, wasSent: true });
});

test('a call that its signal ends fails with the reason of the signal', async () => {
  const port = await tcpServer(() => {});
  const controller = new AbortController();
  const client = clientWith();
  const called = client.call({
    url: `http://127.0.0.1:${port}`,
    request: { method: 'GET', path: '/' },
    signal: controller.signal,
  });
  const aborted = once(controller.signal, 'abort');
  controller.abort(new Error('enough'));
  await aborted;
  await expect(called).rejects.toThrow('enough');
});
