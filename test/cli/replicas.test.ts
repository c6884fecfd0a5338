/** `sluice replicas ...`: who serves, who joins, who drains and who goes. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { submitJob } from '../gateway/policies.ts';
import { newWorld, type World } from '../gateway/world.ts';
import { folderWith, type RunOptions, sluice } from './sluice.ts';

let world: World;
let pool: string;
const stops: (() => Promise<void>)[] = [];

beforeAll(async () => {
  world = await newWorld({}, (stop) => {
    stops.push(stop);
  });
  pool = world.config.domain;
});
afterAll(async () => {
  for (const stop of stops.toReversed()) await stop();
});

const replicas = (args: readonly string[], options: RunOptions = {}) =>
  sluice(['replicas', ...args], { url: world.url, ...options });
const served = async (path: string) => (await world.get(path)).json();
const viewOf = async (id: string) =>
  (await served(`/v1/replicas/${id}`)) as Record<string, unknown>;
const row = (out: string, first: string) =>
  out.split('\n').find((line) => line.startsWith(`${first} `)) ?? '';
/** Puts one that nobody reaches, and takes it away after the work. */
const withReplica = async (id: string, args: readonly string[], work: () => Promise<void>) => {
  const put = ['put', id, '--pool', pool, '--url', 'http://127.0.0.1:9', ...args];
  expect(await replicas(put)).toMatchObject({ code: 0 });
  await work();
  await replicas(['remove', id]);
  expect((await world.get(`/v1/replicas/${id}`)).status).toBe(404);
};

test('without a command it lists who serves, and what the pools take', async () => {
  const { code, out, err } = await replicas([]);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  const [head = '', replica = '', gap, poolHead = '', poolRow = '', ...others] = out
    .trimEnd()
    .split('\n');
  expect({ gap, others }).toEqual({ gap: '', others: [] });
  expect(head).toMatch(/^REPLICA +POOL +URL +PROTOCOL +STATE +HEALTH +IN FLIGHT +OF$/);
  const shown = `^${pool}-1 +${pool} +${world.simulator.url} +ollama +ready +up +0 +8$`;
  expect(replica).toMatch(new RegExp(shown));
  expect(poolHead).toMatch(/^POOL +IN FLIGHT +OF +WORKERS +PROBER +PAUSED$/);
  expect(poolRow).toMatch(new RegExp(`^${pool} +0 +8 +1 +worker-\\w+ +no$`));
  for (const args of [['--json'], ['list', '--json'], ['--pool', pool, '--json']]) {
    const asJson = await replicas(args);
    expect(JSON.parse(asJson.out)).toEqual(await served('/v1/replicas'));
  }
});

test('only those of a pool; one that there is not is an error, and so is no command', async () => {
  const config = { pools: { a: { replicas: [{ url: 'http://a' }] }, b: {} }, models: undefined };
  const url = await world.startAnother({ ...config, node_id: 'another' });
  const none = await replicas(['--pool', 'b'], { url });
  expect(none).toMatchObject({ code: 0, err: '' });
  expect(none.out).toMatch(/^there are no replicas\n\nPOOL .*\nb +0 +0 +0 +- +no\n$/);
  const a = await replicas(['--pool', 'a', '--json'], { url });
  expect(JSON.parse(a.out)).toMatchObject({ replicas: [{ id: 'a-1' }], pools: [{ pool: 'a' }] });
  expect(await replicas(['remove', 'a-1'], { url })).toMatchObject({ code: 0 });
  const unknown = await replicas(['--pool', 'none', '--json']);
  expect(unknown).toMatchObject({ code: 1, out: '' });
  expect(JSON.parse(unknown.err).error).toEqual({
    code: 'not_found',
    message: `there is no pool none; known: ${pool}`,
  });
  expect(await replicas(['drian', 'gpu-7'])).toMatchObject({
    code: 2,
    out: '',
    err: expect.stringContaining('drian is not a command of replicas; known: list, put, drain'),
  });
});

test('put says what it is, with what is known of it, and list has columns for that', async () => {
  const options = ['--protocol', 'openai', '--model', 'm', '--max-inflight', '3', '--ttl', '1h'];
  const place = ['--price', '0.9', '--zone', 'eu-1', '--spot', '--credentials', 'none'];
  const probe = ['--probe', '/v1/models', '--probe-data', '{"a": [1]}', '--initial-delay', '30'];
  await withReplica('gpu-7', [...options, ...place, ...probe], async () => {
    expect(await viewOf('gpu-7')).toMatchObject({
      ...{ id: 'gpu-7', pool, url: 'http://127.0.0.1:9', protocol: 'openai', model: 'm' },
      ...{ max_inflight: 3, price: 0.9, zone: 'eu-1', spot: true, credentials: 'none' },
      ...{ source: 'api', state: 'ready', health: 'starting', expires_at: expect.any(Number) },
      readiness_probe: { path: '/v1/models', post_data: { a: [1] }, initial_delay_seconds: 30 },
    });
    const { out } = await replicas([]);
    expect(out).toMatch(/ IN FLIGHT +OF +PRICE +ZONE +SPOT +SOURCE +WHY\n/);
    expect(row(out, 'gpu-7')).toMatch(
      / openai +ready +starting +\d +3 +0\.9 +eu-1 +spot +api, (1h|59m5\ds) left +.*its probe has not/,
    );
    expect(row(out, `${pool}-1`)).toMatch(/ up +0 +8$/);
  });
});

test('put prints how it stands, warnings apart, and as JSON the answer of the gateway', async () => {
  const args = ['put', 'gpu-8', '--pool', pool, '--url', 'http://127.0.0.1:9'];
  expect(await replicas([...args, '--credentials', 'none', '--state', 'draining'])).toEqual({
    code: 0,
    out: `replica gpu-8 is in pool ${pool}: draining\n`,
    err: 'warning: replica gpu-8: this gateway has no credentials named none; workers must have them\n',
  });
  const asJson = await replicas([...args, '--model', 'm', '--gateway', world.url, '--json'], {
    url: 'http://127.0.0.1:9',
  });
  expect(asJson).toMatchObject({ code: 0, err: '' });
  expect(JSON.parse(asJson.out)).toMatchObject({ id: 'gpu-8', state: 'draining' });
  expect(await replicas(['ready', 'gpu-8'])).toMatchObject({
    code: 0,
    out: 'replica gpu-8 is ready, up\n',
  });
  expect(await replicas(['remove', 'gpu-8'])).toEqual({
    code: 0,
    out: 'replica gpu-8 is removed\n',
    err: '',
  });
  const gone = await replicas(['remove', 'gpu-8', '--json']);
  expect(gone).toMatchObject({ code: 1, out: '' });
  expect(JSON.parse(gone.err).error).toMatchObject({ code: 'not_found', status: 404 });
});

test('put reads a file, in YAML or JSON; options win', async () => {
  const fields = { pool, url: 'http://127.0.0.1:9', price: 1, readiness_probe: '/ready' };
  const yaml = `# Ours\npool: ${pool}\nurl: http://127.0.0.1:9\nreadiness_probe: { path: /a, period: 5s }\n`;
  const cwd = await folderWith({ 'gpu.json': fields, 'gpu.yaml': yaml, 'list.yaml': [1] });
  const put = (args: readonly string[], input?: string) =>
    replicas(['put', 'gpu-9', ...args], { cwd, ...(input !== undefined && { input }) });
  expect(await put(['-f', 'gpu.json', '--price', '2'])).toMatchObject({ code: 0, err: '' });
  expect(await viewOf('gpu-9')).toMatchObject({ price: 2, readiness_probe: { path: '/ready' } });
  expect(await put(['-f', '-', '--initial-delay', '7'], yaml)).toMatchObject({ code: 0, err: '' });
  expect(await viewOf('gpu-9')).toMatchObject({
    readiness_probe: { path: '/a', period: '5s', initial_delay_seconds: 7 },
  });
  expect(await put(['-f', 'gpu.json', '--initial-delay', '7', '--probe', '/b'])).toMatchObject({
    code: 0,
  });
  expect(await viewOf('gpu-9')).toMatchObject({
    readiness_probe: { path: '/b', initial_delay_seconds: 7 },
  });
  expect(await put(['-f', 'list.yaml'])).toEqual({
    code: 1,
    out: '',
    err: 'sluice: list.yaml must be a mapping of the fields of a replica (invalid_replica)\n',
  });
  expect(await put(['-f', '-'], 'a: [')).toMatchObject({
    code: 1,
    err: expect.stringContaining('standard input is not valid YAML'),
  });
  expect(await put(['-f', 'none.yaml'])).toEqual({
    code: 2,
    out: '',
    err: 'sluice: none.yaml cannot be read: there is no such file (unreadable_file)\n',
  });
  await replicas(['remove', 'gpu-9']);
});

test('what cannot be put is refused with every problem; what cannot be meant is not sent', async () => {
  const args = ['put', 'gpu-7', '--pool', 'none', '--url', 'http://127.0.0.1:9'];
  const refused = await replicas(args);
  expect(refused).toMatchObject({ code: 1, out: '' });
  expect(refused.err).toContain('pool "none" is not one of the pools');
  const wrong = await replicas([...args, '--ttl', '1ms', '--max-inflight', '0']);
  expect(wrong.code).toBe(1);
  for (const field of ['ttl_ms must be', 'max_inflight must be']) {
    expect(wrong.err).toContain(field);
  }
  const nowhere = { url: 'http://127.0.0.1:9' };
  for (const [more, says] of [
    [['put', 'gpu-7', '--pool', pool], 'needs --pool and --url'],
    [[...args, '--leave'], '--leave belongs to --renew'],
    [[...args, '--renew'], '--renew needs --ttl'],
    [[...args, '--probe-data', '{}'], 'belong to a probe'],
    [[...args, '--probe', '/', '--probe-data', '{'], 'not JSON'],
    [[...args, '--protocol', 'grpc'], 'Allowed choices are ollama, openai, ray'],
    [[...args, '--ttl', 'soon'], 'not a duration'],
    [['drain', 'gpu-7', '--deadline', 'soon'], 'not a duration'],
    [['drain'], "missing required argument 'id'"],
  ] as const) {
    const { code, out, err } = await replicas(more, nowhere);
    expect({ more, code, out }).toEqual({ more, code: 2, out: '' });
    expect(err).toContain(says);
  }
});

test('drain, ready and remove say what runs there', async () => {
  const own = await newWorld();
  const id = `${own.config.domain}-1`;
  const run = (args: readonly string[]) => sluice(['replicas', ...args], { url: own.url });
  expect(await run(['drain', id])).toMatchObject({
    code: 0,
    out: `replica ${id} drains: nothing runs there\n`,
  });
  expect(await run(['ready', id])).toMatchObject({ code: 0, out: `replica ${id} is ready, up\n` });
  await own.simulator.setFault({ mode: 'hang' });
  await submitJob(own);
  await own.simulator.until((counts) => counts.started === 1);
  const drained = await run(['drain', id, '--deadline', '2m']);
  expect(drained).toMatchObject({ code: 0, err: '' });
  expect(drained.out).toMatch(
    new RegExp(`^replica ${id} drains: 1 prompt runs there; what still runs in (2m|1m59s) moves`),
  );
  const { out } = await run([]);
  expect(row(out, id)).toMatch(/ draining +up +1 +8 +what runs there moves in (2m|1m5\ds)$/);
  const asJson = await run(['drain', id, '--deadline', '2m', '--json']);
  expect(JSON.parse(asJson.out)).toMatchObject({ state: 'draining', in_flight: 1 });
  expect(await run(['remove', id])).toMatchObject({
    code: 0,
    out: `replica ${id} goes with its last prompt: 1 prompt runs there\n`,
  });
  expect(row((await run([])).out, id)).toMatch(/ leaving +up +1 +8 +gone with its last prompt/);
});

test('list says why a replica takes nothing, and when it is tried again', async () => {
  const own = await newWorld({ config: { timeouts: { replica_down: '1h' } } });
  const id = `${own.config.domain}-1`;
  await own.simulator.setFault({ mode: 'unavailable', count: 1 });
  await submitJob(own);
  await own.until(({ replicas: [one] }) => one?.health === 'down');
  const { out } = await sluice(['replicas'], { url: own.url });
  expect(row(out, id)).toMatch(
    / ready +down +0 +8 +the replica answered 503; tried again in (1h|59m5\ds)$/,
  );
});

test('only an admin changes replicas; whoever has a key sees them', async () => {
  const api_keys = [{ key: 'key-of-a-user' }, { key: 'key-of-the-operator', admin: true }];
  const own = await newWorld({ worker: false, config: { api_keys } });
  const id = `${own.config.domain}-1`;
  const run = (args: readonly string[], key: string) =>
    sluice(['replicas', ...args], { url: own.url, env: { SLUICE_API_KEY: key } });
  expect(await run([], 'key-of-a-user')).toMatchObject({ code: 0, err: '' });
  for (const args of [
    ['put', id, '--pool', own.config.domain, '--url', 'http://127.0.0.1:9'],
    ['drain', id],
    ['ready', id],
    ['remove', id],
  ]) {
    const forbidden = { code: 1, out: '', err: expect.stringContaining('(forbidden)') };
    expect(await run(args, 'key-of-a-user')).toMatchObject(forbidden);
    expect(await run(args, 'key-of-the-operator')).toMatchObject({ code: 0, err: '' });
  }
});
