/** `sluice flow ...`: scripts that do work of their own under the limits of the cluster. */
import { execFile } from 'node:child_process';
import { expect, test } from 'vitest';
import { fakeGateway, refused } from '../client/fake-gateway.ts';
import { removePolicy, slotValues } from '../gateway/policies.ts';
import { eventually, newWorld, type World } from '../gateway/world.ts';
import { folderWith, type RunOptions, sluice, startSluice } from './sluice.ts';

const point = 'mistral-prompt';
const flowWorld = (options: Parameters<typeof newWorld>[0] = {}) =>
  newWorld({ worker: false, max: 1, ...options });
const flow = (world: World, args: readonly string[], options: RunOptions = {}) =>
  sluice(['flow', ...args], { url: world.url, ...options });
const waiting = (count: number) => (view: { waiting: number }) => view.waiting === count;
const heldLabels = async (world: World, id: string) => {
  const { request } = await world.admission.inspectRequest(id);
  return request?.labels;
};

test('start prints the id alone, for a script, which ends the flow by it', async () => {
  const world = await flowWorld();
  const args = ['-l', 'user_id=u1', '--label', 'team=a=b', '--tokens', '12', '--timeout', '30s'];
  const { code, out, err } = await flow(world, ['start', point, ...args]);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  const id = out.trim();
  expect(out).toBe(`${id}\n`);
  expect(await heldLabels(world, id)).toEqual({ user_id: 'u1', team: 'a=b' });
  expect((await world.view()).inFlight).toEqual({ mistral: 1 });
  expect(await flow(world, ['end', id, '--tokens', '7', '--status', 'ok'])).toEqual({
    code: 0,
    out: 'done\n',
    err: '',
  });
  expect(await flow(world, ['end', id, '--json'])).toMatchObject({ code: 0, err: '' });
  await world.idle();
});

test('where nothing limits a flow that is said: the name may be a mistake', async () => {
  const world = await flowWorld();
  const { code, out, err } = await flow(world, ['start', 'mistral-promt']);
  expect({ code, err }).toEqual({
    code: 0,
    err: 'sluice: no policy limits flows at mistral-promt\n',
  });
  await flow(world, ['end', out.trim()]);
});

test('answers as JSON; a heartbeat says for how long the flow is kept, until it is over', async () => {
  const world = await flowWorld();
  const started = await flow(world, ['start', point, '--heartbeat', '--json']);
  const { id, ...told } = JSON.parse(started.out);
  expect(told).toEqual({ state: 'admitted', lease_ms: 10_000, limited: true });
  expect(await flow(world, ['heartbeat', id])).toEqual({ code: 0, out: '10000\n', err: '' });
  const ended = await flow(world, ['end', id, '--status', 'error', '--json']);
  expect(JSON.parse(ended.out)).toEqual({ id, state: 'failed' });
  const over = await flow(world, ['heartbeat', id]);
  expect(over).toMatchObject({ code: 1, out: '', err: expect.stringContaining('(flow_over)') });
  const unknown = await flow(world, ['end', 'main-none', '--json']);
  expect(unknown).toMatchObject({ code: 1, out: '' });
  expect(JSON.parse(unknown.err).error).toMatchObject({ code: 'unknown_flow', status: 404 });
});

test('who is not admitted is told so with exit code 3, wrong arguments are 1 and 2', async () => {
  const world = await flowWorld();
  const id = (await flow(world, ['start', point])).out.trim();
  const late = await flow(world, ['start', point, '--timeout', '50ms']);
  expect(late).toMatchObject({ code: 3, out: '' });
  expect(late.err).toMatch(/^sluice: .*; try again in [\d.]+ s \(queue_timeout\)\n$/);
  const asJson = await flow(world, ['start', point, '--timeout', '50', '--json']);
  expect(asJson).toMatchObject({ code: 3, out: '' });
  expect(JSON.parse(asJson.err).error).toMatchObject({
    code: 'queue_timeout',
    status: 504,
    retry_after_ms: expect.any(Number),
  });
  // A run that gets no turn runs nothing.
  const run = await flow(world, ['run', point, '--timeout', '50ms', '--', 'echo', 'ran']);
  expect(run).toMatchObject({ code: 3, out: '' });
  await flow(world, ['end', id]);

  expect(await flow(world, ['start', point, '-l', 'priority=none'])).toMatchObject({
    code: 1,
    out: '',
    err: expect.stringContaining('(invalid_request)'),
  });
  for (const wrong of [
    ['-l', 'user_id'],
    ['--timeout', 'soon'],
    ['--tokens', 'x'],
  ]) {
    expect(await flow(world, ['start', point, ...wrong])).toMatchObject({ code: 2, out: '' });
  }
  const status = await flow(world, ['end', 'x', '--status', 'bad']);
  expect(status).toMatchObject({ code: 2, out: '' });
  const full = await fakeGateway(() => refused(429, 'queue_full', { 'retry-after-ms': '1500' }));
  expect(await sluice(['flow', 'start', 'a'], { url: full.url })).toEqual({
    code: 3,
    out: '',
    err: 'sluice: it says queue_full; try again in 1.5 s (queue_full)\n',
  });
});

test('Ctrl-C while it waits leaves the queue', async () => {
  const world = await flowWorld();
  const id = (await flow(world, ['start', point])).out.trim();
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const { child, ended } = startSluice(['flow', 'start', point], { url: world.url });
    await world.until(waiting(1));
    child.kill(signal);
    expect(await ended).toMatchObject({ code, out: '' });
    await world.until(waiting(0));
  }
  await flow(world, ['end', id]);
  await world.idle();
});

test('run holds its turn for as long as the command runs, and has its exit code', async () => {
  const world = await flowWorld();
  const cwd = await folderWith();
  const held = 'printf %s "$SLUICE_FLOW_ID" > id; while [ ! -e go ]; do sleep 0.02; done; exit 7';
  const args = ['flow', 'run', point, '-l', 'user_id=u1', '--', 'sh', '-c', held];
  const first = startSluice(args, { url: world.url, cwd });
  await world.until((view) => view.inFlight.mistral === 1);
  const second = startSluice(['flow', 'run', point, '--', 'echo', 'mine'], { url: world.url });
  await world.until(waiting(1));
  await sh(cwd, 'while [ ! -s id ]; do sleep 0.02; done');
  const id = (await sh(cwd, 'cat id')).trim();
  expect(await heldLabels(world, id)).toEqual({ user_id: 'u1' });
  await sh(cwd, 'touch go');
  expect(await first.ended).toEqual({ code: 7, out: '', err: '' });
  expect(await second.ended).toEqual({ code: 0, out: 'mine\n', err: '' });
  expect((await world.admission.inspectRequest(id)).ended?.state).toBe('failed');
  await world.idle();
});

test('run passes signals on, and ends the flow of a command that is none', async () => {
  const world = await flowWorld();
  const waits = 'trap "exit 5" TERM; echo ready; while :; do sleep 0.02; done';
  const { child, ended } = startSluice(['flow', 'run', point, '--', 'sh', '-c', waits], {
    url: world.url,
  });
  let said = '';
  child.stdout.on('data', (text) => {
    said += text;
  });
  await eventually(async () => said.includes('ready'));
  child.kill('SIGTERM');
  expect(await ended).toMatchObject({ code: 5, err: '' });
  await world.idle();
  const killed = await flow(world, ['run', point, '--', 'sh', '-c', 'kill -9 $$']);
  expect(killed.code).toBe(137);
  const none = await flow(world, ['run', point, '--', 'no-such-command-here']);
  expect(none).toMatchObject({ code: 127, out: '' });
  expect(none.err).toContain('cannot run no-such-command-here');
  await world.idle();
});

test('run stops its command when the flow is over by no doing of its own', async () => {
  const config = { policies: [slotValues({ max: 1 })], timeouts: { heartbeat: '300ms' } };
  const world = await flowWorld({ config });
  const { ended } = startSluice(['flow', 'run', point, '--', 'sleep', '60'], { url: world.url });
  await world.until((view) => view.inFlight.mistral === 1);
  expect((await removePolicy(world.url, 'mistral', '?force=true')).status).toBe(200);
  const { code, err } = await ended;
  expect(code).toBe(143);
  expect(err).toContain('its policy mistral was removed (flow_over)');
});

/** What a shell prints, in this folder. */
function sh(cwd: string, script: string): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile('sh', ['-c', script], { cwd, timeout: 10_000 }, (error, stdout) =>
      error ? reject(error) : resolve(stdout),
    );
  });
}
