/** What a gateway says when it cannot start, and what it warns of when it can. */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { expect, test } from 'vitest';
import { startGateway } from '../../src/gateway/index.ts';
import { createLog } from '../../src/telemetry/index.ts';
import { startTestRedis, testRedis } from '../support/redis.ts';
import { limitValues } from './policies.ts';
import { startSluice } from './process.ts';
import { configOf, newWorld, policyValues } from './world.ts';

/** Runs it to its end, which is the exit code 1 and a message without a stack. */
async function expectFailure(
  options: Parameters<typeof startSluice>[1],
  args = ['gateway'],
): Promise<string> {
  const sluice = await startSluice(args, options);
  expect(await sluice.ended).toBe(1);
  expect(sluice.output()).not.toMatch(/^ +at /m);
  return sluice.output();
}

test('a wrong configuration: every error with its path and reason', async () => {
  const said = await expectFailure({
    env: { PORT: 'http', REDIS_URL: 'redis://127.0.0.1:1' },
    config: {
      prot: 8080,
      attempts: 0,
      pools: { mistral: { replicas: [{ url: 'ftp://x' }] } },
      models: { mistral: { pool: 'mistrl' } },
      api_keys: [{ key: 'a secret with spaces' }],
      timeouts: { queue: 'soon' },
    },
  });
  const paths = ['PORT', 'prot', 'attempts', 'api_keys[0].key', 'timeouts.queue'];
  for (const path of [...paths, 'pools.mistral.replicas[0].url']) {
    expect(said).toMatch(new RegExp(`^ +${path.replace(/[[\].]/g, '\\$&')} \\S`, 'm'));
  }
  expect(said).toContain('did you mean');
  expect(said).not.toContain('a secret');
});

test('wrong policies: every error of each, with where it came from', async () => {
  const redis = await testRedis();
  const broken = (max: number, name: string) => {
    const values = policyValues(max, name) as { policy: Record<string, unknown> };
    return { ...values, policy: { ...values.policy, prioritty: 1 } };
  };
  const said = await expectFailure({
    env: { REDIS_URL: redis.url, PORT: '0', GRPC_PORT: '0' },
    config: { domain: 'wrong_policies', policies: [broken(-1, 'a'), broken(1, 'b'), 'nothing'] },
  });
  expect(said).toContain('policies[0]: policy.concurrency_scheduler.max_concurrency ');
  expect(said).toContain('policies[0]: policy.prioritty ');
  expect(said).toContain('policies[1]: policy.prioritty ');
  expect(said).toContain('policies[2]: the document ');
  expect(said).toContain('sluice.yaml');
});

test('without REDIS_URL it says what to do', async () => {
  for (const said of await Promise.all([
    expectFailure({}, ['gateway']),
    expectFailure({}, ['worker']),
  ])) {
    expect(said).toContain('REDIS_URL');
    expect(said).toContain('sluice dev');
  }
});

test('a Redis that may drop keys is refused', async () => {
  const server = await startTestRedis();
  try {
    const redis = server.connect();
    await redis.config('SET', 'maxmemory-policy', 'allkeys-lru');
    const env = { REDIS_URL: server.url, PORT: '0', GRPC_PORT: '0' };
    const said = await expectFailure({ env });
    expect(said).toContain('allkeys-lru');
    expect(said).toContain('noeviction');
  } finally {
    await server.stop();
  }
});

test('a gateway whose file names no policy begins with none', async () => {
  const server = await testRedis();
  const domain = `none_${Math.floor(Math.random() * 1e9)}`;
  const env = { REDIS_URL: server.url, PORT: '0', GRPC_PORT: '0' };
  const gateway = await startSluice(['gateway'], { env, config: { domain } });
  const url = await gateway.says(/"url":"(http:[^"]+)"/);
  expect(await (await fetch(`${url}/v1/policies`)).json()).toMatchObject({ policies: [] });
  // npm passes a signal on that has reached its group already: that is one, and not two.
  gateway.signal('SIGINT');
  gateway.signal('SIGINT');
  expect({ code: await gateway.ended, said: gateway.output() }).toMatchObject({ code: 0 });
  expect(gateway.output()).toContain('gateway stopped');
  await server.stop();
});

test('a gateway ends also when a client on the port of gRPC says nothing and reads nothing', async () => {
  const server = await testRedis();
  const domain = `mute_${Math.floor(Math.random() * 1e9)}`;
  const env = { REDIS_URL: server.url, PORT: '0', GRPC_PORT: '0' };
  const config = { domain, timeouts: { stop: '100ms' } };
  const gateway = await startSluice(['gateway'], { env, config });
  const port = Number(await gateway.says(/"grpc":"127\.0\.0\.1:(\d+)"/));
  const mute = connect({ host: '127.0.0.1', port, allowHalfOpen: true }).on('error', () => {});
  await once(mute, 'connect');
  mute.pause();
  gateway.signal('SIGTERM');
  expect({ code: await gateway.ended, said: gateway.output() }).toMatchObject({ code: 0 });
  expect(gateway.output()).toContain('gateway stopped');
  mute.destroy();
  await server.stop();
});

test('keys of another version are refused, and left alone', async () => {
  const server = await testRedis();
  const redis = server.connect();
  await redis.hset('sluice:{other_schema}:meta', 'schema', '99');
  const env = { REDIS_URL: server.url, PORT: '0', GRPC_PORT: '0' };
  const said = await expectFailure({ env, config: { domain: 'other_schema' } });
  expect(said).toContain('schema 99');
  expect(await redis.keys('*')).toEqual(['sluice:{other_schema}:meta']);
  expect(await redis.hgetall('sluice:{other_schema}:meta')).toEqual({ schema: '99' });
  await server.stop();
});

test('a port that is taken is named', async () => {
  const server = await testRedis();
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const address = taken.address();
  const port = typeof address === 'object' ? String(address?.port) : '';
  const env = { REDIS_URL: server.url, PORT: port, GRPC_PORT: '0' };
  // Without a stack, although it is the system's error.
  const said = await expectFailure({ env, config: { domain: 'taken_port' } });
  expect(said).toContain(port);
  expect(said).toContain('set PORT');
  taken.close();
});

test('an address open to others without keys is warned of', async () => {
  const server = await testRedis();
  const redis = server.connect();
  // Refused before it listens.
  await redis.hset('sluice:{warned}:meta', 'schema', '99');
  let text = '';
  const log = createLog('warn', 'test', {
    write: (line: string) => {
      text += line;
    },
  });
  const start = async (fields: object) => {
    text = '';
    const config = await configOf({
      domain: 'warned',
      port: 0,
      grpc_port: 0,
      host: '0.0.0.0',
      ...fields,
    });
    await expect(startGateway(config, server.url, log)).rejects.toThrow('schema 99');
    return text;
  };
  expect(await start({})).toContain('without api_keys');
  expect(await start({ api_keys: [{ key: 'a-key' }] })).not.toContain('without api_keys');
  expect(await start({ host: '127.0.0.1' })).not.toContain('without api_keys');
  await server.stop();
});

test('what has no effect in the policies of files is warned of, with where it stands', async () => {
  const flat = {
    policy_name: 'flat',
    max_inflight_duration: '60s',
    max_concurrency: 2,
    control_point: 'mistral-prompt',
  };
  const policies = [flat, limitValues({ service: 'web' })];
  const world = await newWorld({ worker: false, config: { policies } });
  expect(world.log()).toMatch(
    /"level":40.*policies\[1\]: policy\.concurrency_limiter\.selectors\[0\]\.service is not used/,
  );
  expect(world.log()).not.toContain('policies[0]: ');
  const kept = await (await world.get('/v1/policies/flat')).json();
  expect(kept).toMatchObject({ source: expect.stringMatching(/policies\[0\]$/), policy: flat });
});
