/** `sluice policy ...`: policies put, compared, read and removed from the command line. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import {
  quotaValues,
  rateValues,
  removePolicy,
  slotValues,
  submitJob,
} from '../gateway/policies.ts';
import { newWorld, policyValues, type World } from '../gateway/world.ts';
import { folderWith, type RunOptions, sluice } from './sluice.ts';

let world: World;
const stops: (() => Promise<void>)[] = [];

beforeAll(async () => {
  world = await newWorld({}, (stop) => {
    stops.push(stop);
  });
});
afterAll(async () => {
  for (const stop of stops.toReversed()) await stop();
});

const policy = (args: readonly string[], options: RunOptions = {}) =>
  sluice(['policy', ...args], { url: world.url, ...options });
const inCluster = async (name: string, url = world.url) => {
  const answer = await fetch(`${url}/v1/policies/${name}`);
  return answer.ok ? ((await answer.json()) as { policy: unknown }).policy : undefined;
};
const names = async () => {
  const answer = await world.get('/v1/policies');
  return ((await answer.json()) as { policies: { name: string }[] }).policies.map(
    ({ name }) => name,
  );
};

test('apply says of each file what it did, and all gateways have it at once', async () => {
  const another = await world.startAnother();
  const slots = slotValues({ name: 'cli.slots', controlPoint: 'cli', max: 3 });
  const rate = rateValues({ name: 'cli-rate', capacity: 5, fill: 1, interval: '1m' });
  const cwd = await folderWith({ 'a.yaml': `# Ours\n${stringify(slots)}`, 'b.json': rate });
  const first = await policy(['apply', '-f', 'a.yaml', 'b.json'], { cwd });
  expect(first).toMatchObject({ code: 0, err: '' });
  expect(first.out).toMatch(
    /^policy cli\.slots created \(version \w{16}\)\npolicy cli-rate created \(version \w{16}\)\n$/,
  );
  for (const url of [world.url, another]) {
    expect(await inCluster('cli.slots', url)).toEqual(slots);
    expect(await inCluster('cli-rate', url)).toEqual(rate);
  }
  const more = slotValues({ name: 'cli.slots', controlPoint: 'cli', max: 4 });
  const second = await policy(['apply', '--values-file=-', '-f', 'b.json'], {
    cwd,
    input: stringify(more),
  });
  expect(second).toMatchObject({ code: 0, err: '' });
  expect(second.out).toMatch(
    /^policy cli-rate unchanged \(version \w{16}\)\npolicy cli\.slots changed \(version \w{16}\)\n$/,
  );
  const queue = await fetch(`${another}/v1/queues/cli`);
  expect(await queue.json()).toMatchObject({ limits: [{ key: 'cli.slots', limit: 4 }] });
  for (const name of ['cli.slots', 'cli-rate']) await removePolicy(world.url, name);
});

test('apply as aperturectl spells it, with the answers as JSON', async () => {
  const values = slotValues({ name: 'moved', controlPoint: 'moved' });
  const cwd = await folderWith({ 'values.yaml': stringify(values) });
  const args = ['blueprints', 'apply', '--values-file=values.yaml', '--json'];
  const { code, out, err } = await sluice(args, { cwd, url: world.url });
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(JSON.parse(out)).toEqual([
    {
      change: 'created',
      name: 'moved',
      version: expect.stringMatching(/^\w{16}$/),
      source: 'api',
      policy: values,
    },
  ]);
  await removePolicy(world.url, 'moved');
});

test('nothing is sent when one of several files is wrong, and every problem is told', async () => {
  const good = slotValues({ name: 'good' });
  const bad = slotValues({ name: 'bad', max: 0, perLabel: { user_id: -1 } });
  const wrong = { ...bad, policy: { ...bad.policy, prioritty: 1 } };
  const cwd = await folderWith({
    'good.yaml': good,
    'wrong.yaml': wrong,
    'no.yaml': 'a: [1',
    'twin.yaml': good,
    'utf16.yaml': Buffer.from(`\ufeff${JSON.stringify(good)}`, 'utf16le'),
  });
  const files = ['-f', 'good.yaml', 'wrong.yaml', '-f', 'no.yaml', 'twin.yaml', 'utf16.yaml'];
  const block = 'policy.concurrency_scheduler';
  const problems = [
    `  wrong.yaml: ${block}.max_concurrency must be`,
    `  wrong.yaml: ${block}.concurrency_limiter.per_label.user_id must be`,
    '  wrong.yaml: policy.prioritty is not a field',
    '  no.yaml: the document is not valid YAML',
    '  twin.yaml: policy_name is that of good.yaml',
    '  utf16.yaml: the document is not UTF-8',
  ];
  for (const args of [['apply'], ['apply', '--dry-run'], ['diff'], ['validate']]) {
    const { code, out, err } = await policy([...args, ...files], { cwd });
    expect(code).toBe(args[0] === 'diff' ? 2 : 1);
    expect(out).toBe(args[0] === 'validate' ? 'good.yaml: policy good is valid\n' : '');
    for (const problem of problems) expect(err).toContain(problem);
    if (args[0] !== 'validate') expect(err).toContain('nothing was sent (invalid_policy)');
  }
  expect(await names()).not.toContain('good');

  const asJson = await policy(['apply', ...files, '--json'], { cwd });
  expect(asJson).toMatchObject({ code: 1, out: '' });
  const { error } = JSON.parse(asJson.err);
  expect(error).toMatchObject({ code: 'invalid_policy' });
  expect(error.problems).toHaveLength(problems.length);
  expect(error.problems[0]).toEqual({
    file: 'wrong.yaml',
    path: expect.stringContaining(block),
    reason: expect.stringContaining('must be'),
  });
});

test('validate asks nobody; files that cannot be read are trouble', async () => {
  const cwd = await folderWith({ 'a.yaml': policyValues(4), 'b.yaml': {} });
  const nowhere = { cwd, url: 'http://127.0.0.1:9' };
  const valid = await policy(['validate', '-f', 'a.yaml', '--json'], nowhere);
  expect(valid).toMatchObject({ code: 0, err: '' });
  expect(JSON.parse(valid.out)).toEqual({
    valid: [{ file: 'a.yaml', name: 'mistral', warnings: [] }],
    problems: [],
  });
  const wrong = await policy(['validate', '-f', 'b.yaml', '--json'], nowhere);
  expect(wrong).toMatchObject({ code: 1, err: '' });
  expect(JSON.parse(wrong.out).problems).toContainEqual({
    file: 'b.yaml',
    path: expect.any(String),
    reason: expect.any(String),
  });
  const unreadable = await policy(['validate', '-f', 'none.yaml', '.', 'a.yaml'], nowhere);
  expect(unreadable).toMatchObject({ code: 2, out: 'a.yaml: policy mistral is valid\n' });
  expect(unreadable.err).toContain('none.yaml: the document cannot be read: there is no such file');
  expect(unreadable.err).toContain('.: the document cannot be read: it is a directory');
  for (const args of [['validate'], ['validate', '-f', '-', '-']]) {
    expect(await policy(args, nowhere)).toMatchObject({
      code: 2,
      err: expect.stringContaining('(usage)'),
    });
  }
});

test('diff shows what apply would change, and dry runs change nothing', async () => {
  const before = slotValues({ name: 'compared', controlPoint: 'a', max: 4 });
  const after = slotValues({ name: 'compared', controlPoint: 'a', max: 40 });
  const fresh = slotValues({ name: 'fresh', controlPoint: 'a' });
  const { policy: block, blueprint } = before;
  // The order of keys is no difference.
  const same = stringify({ policy: block, blueprint });
  const cwd = await folderWith({ 'same.yaml': same, 'after.yaml': after, 'fresh.yaml': fresh });
  await policy(['apply', '-f', '-'], { input: stringify(before) });

  expect(await policy(['diff', '-f', 'same.yaml'], { cwd })).toEqual({ code: 0, out: '', err: '' });
  const { code, out, err } = await policy(['diff', '-f', 'after.yaml'], { cwd });
  expect({ code, err }).toEqual({ code: 1, err: '' });
  const lines = out.trimEnd().split('\n');
  expect(lines[0]).toMatch(/^--- compared \(in the cluster, \w{16}\)$/);
  expect(lines[1]).toBe('+++ after.yaml');
  expect(lines.slice(2).filter((line) => !line.startsWith(' '))).toEqual([
    '@@',
    '-    max_concurrency: 4',
    '+    max_concurrency: 40',
  ]);

  const files = ['-f', 'same.yaml', '-f', 'fresh.yaml'];
  const dry = await policy(['apply', '--dry-run', ...files], { cwd });
  expect(dry).toMatchObject({ code: 0, err: '' });
  expect(dry.out).toMatch(/^policy compared is as it would be\npolicy fresh would be created\n---/);
  expect(dry.out).toContain('+  policy_name: fresh');
  const asJson = await policy(['diff', ...files, '--json'], { cwd });
  expect(asJson.code).toBe(1);
  expect(JSON.parse(asJson.out)).toEqual([
    { name: 'compared', file: 'same.yaml', change: 'unchanged', diff: '', warnings: [] },
    {
      name: 'fresh',
      file: 'fresh.yaml',
      change: 'created',
      diff: expect.stringContaining('+++'),
      warnings: [],
    },
  ]);
  expect(await inCluster('compared')).toEqual(before);
  expect(await inCluster('fresh')).toBeUndefined();
  const unreachable = await policy(['diff', ...files], { cwd, url: 'http://127.0.0.1:9' });
  expect(unreachable.code).toBe(2);
  await removePolicy(world.url, 'compared');
});

test('what get prints can be applied again, and list has all in one line each', async () => {
  const quota = quotaValues({
    name: 'daily',
    controlPoint: 'b',
    capacity: 100,
    fill: 10,
    interval: '1h',
  });
  await policy(['apply', '-f', '-'], { input: stringify(quota) });
  const got = await policy(['get', 'daily']);
  expect(got).toMatchObject({ code: 0, err: '' });
  expect(parse(got.out)).toEqual(quota);
  const again = await policy(['apply', '-f', '-'], { input: got.out });
  expect(again.out).toMatch(/^policy daily unchanged /);
  const asJson = await policy(['get', 'daily', '--json']);
  expect(JSON.parse(asJson.out)).toMatchObject({ name: 'daily', source: 'api', policy: quota });

  const list = await policy(['list']);
  expect(list).toMatchObject({ code: 0, err: '' });
  expect(list.out).toMatch(/^POLICY +LIMIT +SOURCE +VERSION\n/);
  expect(list.out).toMatch(/^daily +a quota of 100, and 10 more each 1h on b +api +\w{16}$/m);
  expect(list.out).toMatch(/^mistral +at most 4 at once on mistral-prompt +\S.*sluice\.yaml/m);
  expect(JSON.parse((await policy(['list', '--json'])).out)).toEqual(
    await (await world.get('/v1/policies')).json(),
  );
  await removePolicy(world.url, 'daily');
});

test('the flat form has its name at the top, and what is without effect is a warning', async () => {
  const flat = {
    policy_name: 'flat',
    max_concurrency: 2,
    max_inflight_duration: '60s',
    control_point: 'flat',
    limit_by_label_key: 'limit_by_label_key',
  };
  const cwd = await folderWith({ 'flat.yaml': flat });
  const warning = /^warning: policy flat: limit_by_label_key is still the example: .*\n$/;
  const dry = await policy(['apply', '--dry-run', '-f', 'flat.yaml'], { cwd });
  expect(dry).toMatchObject({ code: 0, err: expect.stringMatching(warning) });
  const applied = await policy(['apply', '-f', 'flat.yaml'], { cwd });
  expect(applied).toMatchObject({ code: 0, err: expect.stringMatching(warning) });
  expect(applied.out).toMatch(/^policy flat created /);
  const again = await policy(['diff', '-f', 'flat.yaml'], { cwd });
  expect(again).toEqual({ code: 0, out: '', err: '' });
  const got = await policy(['get', 'flat']);
  const round = await policy(['apply', '-f', '-'], { input: got.out });
  expect(round.out).toMatch(/^policy flat unchanged /);
  const valid = await policy(['validate', '-f', 'flat.yaml'], { cwd });
  expect(valid).toEqual({
    code: 0,
    out: 'flat.yaml: policy flat is valid\n',
    err: expect.stringMatching(warning),
  });
  await removePolicy(world.url, 'flat');
});

test('delete is refused while somebody runs under it, unless it is forced', async () => {
  await world.simulator.setFault({ mode: 'hang' });
  await submitJob(world);
  await world.simulator.until((counts) => counts.started === 1);
  const refused = await policy(['delete', 'mistral']);
  expect(refused).toMatchObject({ code: 1, out: '' });
  expect(refused.err).toMatch(/^sluice: policy mistral is in use: .* \(in_use\)\n$/);
  const asJson = await policy(['delete', 'mistral', '--json']);
  expect(asJson).toMatchObject({ code: 1, out: '' });
  expect(JSON.parse(asJson.err)).toEqual({
    error: { code: 'in_use', status: 409, message: expect.stringContaining('in use') },
  });
  const forced = await policy(['delete', 'mistral', '--force']);
  expect(forced).toEqual({
    code: 0,
    out: 'policy mistral deleted, 1 request cancelled\n',
    err: '',
  });
  const gone = await policy(['delete', 'mistral', '--json']);
  expect(gone.code).toBe(1);
  expect(JSON.parse(gone.err).error).toMatchObject({ code: 'not_found', status: 404 });
  expect(await policy(['get', 'mistral'])).toMatchObject({
    code: 1,
    err: 'sluice: there is no policy mistral (not_found)\n',
  });
});
