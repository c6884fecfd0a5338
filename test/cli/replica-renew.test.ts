/** `sluice replicas put --renew`: what runs beside a replica, for as long as that runs. */
import { expect, test } from 'vitest';
import { type Answer, fakeGateway, refused } from '../client/fake-gateway.ts';
import { eventually, newWorld } from '../gateway/world.ts';
import { type RunOptions, startSluice } from './sluice.ts';

const put = (pool: string, more: readonly string[], options: RunOptions) =>
  startSluice(
    [
      ...['replicas', 'put', 'gpu-7', '--pool', pool, '--url', 'http://127.0.0.1:9'],
      ...['--ttl', '2100ms', '--renew', ...more],
    ],
    options,
  );

const view = { id: 'gpu-7', pool: 'mistral', state: 'ready', health: 'up', in_flight: 0 };
const isThere: Answer = { status: 200, body: view };
const isGone: Answer = { status: 200, body: { id: 'gpu-7', state: 'removed' } };

test('it is put again before its time is over, and removed on the signal', async () => {
  const world = await newWorld({ worker: false });
  const { domain } = world.config;
  const { child, ended } = put(domain, ['--state', 'draining'], { url: world.url });
  const expiresAt = async () => {
    const { replicas } = await world.view();
    return replicas.find(({ id }) => id === 'gpu-7')?.expires_at;
  };
  await eventually(async () => (await expiresAt()) !== undefined);
  const first = (await expiresAt()) ?? 0;
  // Later than its time it is still there.
  await eventually(async () => ((await expiresAt()) ?? 0) > first + 2_100);
  child.kill('SIGTERM');
  expect(await ended).toEqual({
    code: 0,
    out: `replica gpu-7 is in pool ${domain}: draining; put again every 700ms\nreplica gpu-7 is removed\n`,
    err: '',
  });
  expect(await expiresAt()).toBeUndefined();
});

test('with --leave it stays for its time', async () => {
  const world = await newWorld({ worker: false });
  const { child, ended } = put(world.config.domain, ['--leave'], { url: world.url });
  const isRegistered = async () => (await world.view()).replicas.some(({ id }) => id === 'gpu-7');
  await eventually(isRegistered);
  child.kill('SIGINT');
  expect(await ended).toMatchObject({ code: 0, err: '' });
  expect(await isRegistered()).toBe(true);
  await eventually(async () => !(await isRegistered()));
});

test('it outlives gateways that are away, and says so once, and once when they are back', async () => {
  let isAway = false;
  const gateway = await fakeGateway(({ what }) => {
    if (isAway) return 'break';
    return what.startsWith('DELETE') ? isGone : isThere;
  });
  const puts = () => gateway.whats().filter((what) => what === 'PUT /v1/replicas/gpu-7').length;
  const more = async (count: number) => {
    const before = puts();
    await eventually(async () => puts() >= before + count);
  };
  const { child, ended } = put('mistral', ['--state', 'draining'], { url: gateway.url });
  await more(1);
  for (let turn = 0; turn < 2; turn += 1) {
    isAway = true;
    await more(3);
    isAway = false;
    await more(2);
  }
  child.kill('SIGTERM');
  const { code, out, err } = await ended;
  expect({ code, out }).toEqual({
    code: 0,
    out: 'replica gpu-7 is in pool mistral: ready, up; put again every 700ms\nreplica gpu-7 is removed\n',
  });
  const away = `sluice: replica gpu-7 is not renewed, it is tried again: cannot reach ${gateway.url} (the connection broke)`;
  const back = 'sluice: replica gpu-7 is renewed again';
  expect(err.trimEnd().split('\n')).toEqual([away, back, away, back]);
  // Whoever drains it meanwhile is not overruled.
  const states = gateway.asked.map(({ body }) => (body as { state?: string } | undefined)?.state);
  expect(states.filter((state) => state !== undefined)).toEqual(['draining']);
  expect(gateway.whats().at(-1)).toBe('DELETE /v1/replicas/gpu-7');
});

test('it may start before any gateway does', async () => {
  const gateway = await fakeGateway(({ what }, before) => {
    if (what.startsWith('DELETE')) return refused(404, 'not_found');
    return before < 3 ? refused(503, 'unavailable') : isThere;
  });
  const { child, ended } = put('mistral', ['--json'], { url: gateway.url });
  await eventually(async () => gateway.asked.length > 5);
  child.kill('SIGTERM');
  const { code, out, err } = await ended;
  expect(code).toBe(0);
  expect(out).toBe(
    `${JSON.stringify(view, null, 2)}\n` +
      `${JSON.stringify({ id: 'gpu-7', state: 'removed' }, null, 2)}\n`,
  );
  expect(err).toContain('"code": "unavailable"');
  expect(err).toContain('"renewed"');
});

test('what a gateway refuses ends it, and what is put later than the signal is none', async () => {
  const once = await fakeGateway((_, before) => {
    return before === 0 ? isThere : refused(401, 'unauthorized');
  });
  const { ended } = put('mistral', [], { url: once.url });
  const { code, err } = await ended;
  expect(code).toBe(1);
  expect(err).toContain('(unauthorized)');
  expect(once.whats()).toEqual(['PUT /v1/replicas/gpu-7', 'PUT /v1/replicas/gpu-7']);

  // The signal comes while it waits for the answer to a put: the removal is after that.
  const slow = await fakeGateway(({ what }) => (what.startsWith('PUT') ? 'wait' : isGone));
  const waiting = put('mistral', [], { url: slow.url });
  await eventually(async () => slow.asked.length === 1);
  waiting.child.kill('SIGTERM');
  waiting.child.kill('SIGTERM');
  const { response } = slow.asked[0] ?? {};
  response?.writeHead(200, { 'content-type': 'application/json' });
  response?.end(JSON.stringify(view));
  expect(await waiting.ended).toMatchObject({ code: 0 });
  expect(slow.whats()).toEqual(['PUT /v1/replicas/gpu-7', 'DELETE /v1/replicas/gpu-7']);
});

test('where it cannot be removed it says when it is gone', async () => {
  const gateway = await fakeGateway(({ what }) => (what.startsWith('PUT') ? isThere : 'break'));
  const { child, ended } = put('mistral', [], { url: gateway.url });
  await eventually(async () => gateway.asked.length > 0);
  child.kill('SIGTERM');
  const { code, err } = await ended;
  expect(code).toBe(2);
  expect(err).toMatch(
    /^sluice: replica gpu-7 could not be removed: it is gone within 2s100ms\nsluice: /,
  );
});
