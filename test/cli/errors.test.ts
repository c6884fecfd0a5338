/** What the command line says when it cannot do what it was told, and with which exit code. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { fakeGateway } from '../client/fake-gateway.ts';
import { newWorld, policyValues, type World } from '../gateway/world.ts';
import { folderWith, sluice } from './sluice.ts';

let world: World;
const stops: (() => Promise<void>)[] = [];

beforeAll(async () => {
  const api_keys = [{ key: 'key-of-a-user' }, { key: 'key-of-the-operator', admin: true }];
  const config = { api_keys };
  world = await newWorld({ worker: false, config }, (stop) => {
    stops.push(stop);
  });
});
afterAll(async () => {
  for (const stop of stops.toReversed()) await stop();
});

test('where no gateway runs it says where it looked and how to look elsewhere', async () => {
  const { code, out, err } = await sluice(['queue', '--url', 'http://127.0.0.1:9/']);
  expect({ code, out }).toEqual({ code: 2, out: '' });
  expect(err).toBe(
    'sluice: cannot reach http://127.0.0.1:9 (connection refused): is a gateway running? ' +
      'Set SLUICE_URL to another\n',
  );
  const asJson = await sluice(['queue', '--json'], { url: 'http://127.0.0.1:9' });
  expect(asJson).toMatchObject({ code: 2, out: '' });
  expect(JSON.parse(asJson.err)).toEqual({
    error: { code: 'unreachable', message: expect.stringContaining('http://127.0.0.1:9') },
  });
});

test('a key comes from the variable or the option, which wins; without one it names the variable', async () => {
  const { url } = world;
  const none = await sluice(['queue'], { url });
  expect(none).toMatchObject({ code: 1, out: '' });
  expect(none.err).toMatch(/^sluice: .*: set SLUICE_API_KEY to a key of the gateway \(unauth/);
  const user = { SLUICE_API_KEY: 'key-of-a-user' };
  expect(await sluice(['queue'], { url, env: user })).toMatchObject({ code: 0, err: '' });
  const wrong = await sluice(['queue', '--api-key', 'not-a-key'], { url, env: user });
  expect(wrong).toMatchObject({ code: 1, out: '' });
  expect(wrong.err).not.toContain('not-a-key');
});

test('only an admin changes policies', async () => {
  const cwd = await folderWith({ 'p.yaml': policyValues(6) });
  const apply = ['policy', 'apply', '-f', 'p.yaml'];
  const { url } = world;
  const user = await sluice(apply, { cwd, url, env: { SLUICE_API_KEY: 'key-of-a-user' } });
  expect(user).toMatchObject({ code: 1, out: '', err: expect.stringContaining('(forbidden)') });
  const env = { SLUICE_API_KEY: 'key-of-the-operator' };
  const admin = await sluice(apply, { cwd, url, env });
  expect(admin).toMatchObject({ code: 0, out: expect.stringContaining('mistral changed') });
});

test('a gateway without its Redis is trouble, and so is what is no gateway', async () => {
  const away = await fakeGateway(() => ({
    status: 503,
    body: { error: { message: 'Redis cannot be reached', code: 'unavailable' } },
    headers: { 'retry-after-ms': '1000' },
  }));
  expect(await sluice(['replicas'], { url: away.url })).toEqual({
    code: 2,
    out: '',
    err: 'sluice: Redis cannot be reached; try again in 1.0 s (unavailable)\n',
  });
  const page = { status: 404, body: '<html>', headers: { 'content-type': 'text/html' } };
  const other = await fakeGateway(() => page);
  const { code, err } = await sluice(['queue'], { url: other.url });
  expect(code).toBe(2);
  expect(err).toContain(`${other.url} does not answer as a Sluice gateway does (404 text/html)`);
});

test('warnings of the gateway are told, and a file that is refused leaves those before it', async () => {
  const answer = { name: 'mistral', version: 'v2', source: 'api', policy: {} };
  const gateway = await fakeGateway(({ what }) => {
    if (what.startsWith('GET')) return { status: 200, body: { ...answer, version: 'v1' } };
    if (what.endsWith('/b')) {
      return { status: 400, body: { error: { message: 'not here', code: 'invalid_request' } } };
    }
    return { status: 200, body: { ...answer, warnings: ['one', 'two'] } };
  });
  const cwd = await folderWith({ 'a.yaml': policyValues(4), 'b.yaml': policyValues(4, 'b') });
  const apply = ['policy', 'apply', '-f', 'a.yaml', 'b.yaml'];
  expect(await sluice(apply, { cwd, url: gateway.url })).toEqual({
    code: 1,
    out: 'policy mistral changed (version v2)\n',
    err:
      'warning: policy mistral: one\nwarning: policy mistral: two\n' +
      'sluice: not here (invalid_request)\n',
  });
  const asJson = await sluice([...apply, '--json'], { cwd, url: gateway.url });
  expect(asJson.code).toBe(1);
  expect(JSON.parse(asJson.out)).toMatchObject([{ change: 'changed', warnings: ['one', 'two'] }]);
  expect(JSON.parse(asJson.err).error).toMatchObject({ code: 'invalid_request', status: 400 });
});

test('wrong arguments are exit code 2, with --json as JSON; help and version are 0', async () => {
  const wrong = [
    ['queu'],
    ['queue', '--colour'],
    ['explain'],
    ['queue', 'a', 'b'],
    ['simulator', '--port', 'x'],
    ['queue', '--url', 'localhost'],
  ];
  for (const args of wrong) {
    const { code, out, err } = await sluice(args);
    expect({ args, code, out }).toEqual({ args, code: 2, out: '' });
    expect(err).toMatch(/^error: .*/);
  }
  const asJson = await sluice(['explain', '--json']);
  expect(asJson).toMatchObject({ code: 2, out: '' });
  expect(JSON.parse(asJson.err)).toEqual({
    error: { code: 'usage', message: expect.stringContaining("missing required argument 'id'") },
  });
  const variable = await sluice(['queue'], { url: 'nowhere' });
  expect(variable).toMatchObject({ code: 2, err: expect.stringContaining('SLUICE_URL') });
  expect(await sluice(['--version'])).toMatchObject({ code: 0, err: '' });
});

test('help of each command has an example, and says where the gateway is named', async () => {
  const commands = [
    ['queue'],
    ['explain'],
    ['replicas'],
    ['replicas', 'list'],
    ['replicas', 'put'],
    ['replicas', 'drain'],
    ['replicas', 'ready'],
    ['replicas', 'remove'],
    ['dead-letters'],
    ['dead-letters', 'list'],
    ['dead-letters', 'show'],
    ['dead-letters', 'replay'],
    ['dead-letters', 'purge'],
    ['pause'],
    ['resume'],
    ['paused'],
    ['policy', 'apply'],
    ['policy', 'diff'],
    ['policy', 'list'],
    ['policy', 'get'],
    ['policy', 'delete'],
    ['flow', 'start'],
    ['flow', 'heartbeat'],
    ['flow', 'end'],
    ['flow', 'run'],
  ];
  for (const args of commands) {
    const { code, out } = await sluice([...args, '--help']);
    expect(code).toBe(0);
    expect(out).toMatch(new RegExp(`^  \\$ .*sluice ${args.join(' ')}`, 'm'));
    for (const variable of ['SLUICE_URL', 'SLUICE_API_KEY']) expect(out).toContain(variable);
  }
  const { out } = await sluice(['--help']);
  for (const text of ['Exit codes:', 'SLUICE_URL']) expect(out).toContain(text);
});

test('arguments that no command takes are exit code 2, also of the commands of policies', async () => {
  for (const args of [
    ['policy', 'apply', 'values.yaml'],
    ['policy', 'delete', 'a', 'b'],
    ['blueprints', 'apply', 'values.yaml'],
  ]) {
    expect(await sluice(args, {})).toMatchObject({
      code: 2,
      err: expect.stringContaining('too many arguments'),
    });
  }
});

test('a URL that is none says what one begins with', async () => {
  const { code, err } = await sluice(['queue', '--url', '127.0.0.1:8080'], {});
  expect({ code, err }).toMatchObject({ code: 2, err: expect.stringContaining('http://') });
});
