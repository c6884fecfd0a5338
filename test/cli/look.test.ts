/** `sluice queue` and `explain`: what the gateway shows, as text and as JSON. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { quotaValues, rateValues, slotValues, submitJob } from '../gateway/policies.ts';
import { newWorld, type World } from '../gateway/world.ts';
import { type RunOptions, sluice } from './sluice.ts';

let world: World;
let held: string;
let second: string;
const stops: (() => Promise<void>)[] = [];

/** One runs and holds its user's only slot, one waits for it. */
beforeAll(async () => {
  const policies = [
    slotValues({ name: 'team', max: 3, perLabel: { user_id: 1 } }),
    rateValues({ name: 'rate', controlPoint: 'limited', capacity: 5, fill: 2, interval: '1m' }),
    quotaValues({ name: 'quota', controlPoint: 'a/b', capacity: 100, fill: 1, interval: '1s' }),
  ];
  world = await newWorld({ config: { policies } }, (stop) => {
    stops.push(stop);
  });
  await world.simulator.setFault({ mode: 'hang' });
  const labels = { user_id: 'ann', workload: 'paid', priority: '5' };
  held = await submitJob(world, labels);
  await world.simulator.until((counts) => counts.started === 1);
  second = await submitJob(world, labels);
});
afterAll(async () => {
  for (const stop of stops.toReversed()) await stop();
});

const run = (args: readonly string[], options: RunOptions = {}) =>
  sluice(args, { url: world.url, ...options });
const served = async (path: string) => (await world.get(path)).json();

test('queue shows limits and workloads of every control point', async () => {
  const { code, out, err } = await run(['queue']);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  const blocks = out.trimEnd().split('\n\n');
  const mistral = blocks.find((block) => block.startsWith('mistral-prompt'))?.split('\n') ?? [];
  expect(mistral[0]).toBe('mistral-prompt: 1 waits');
  expect(mistral[1]).toMatch(/^LIMIT +IN FLIGHT +OF +WAITING$/);
  expect(mistral[2]).toMatch(/^team\.user_id=ann +1 +1 +-$/);
  expect(mistral[3]).toMatch(/^team +1 +3 +1$/);
  expect(mistral[4]).toMatch(/^WORKLOAD +PRIORITY +WAITING +IN FLIGHT$/);
  expect(mistral[5]).toMatch(/^paid +5 +1 +1$/);
  const limited = blocks.find((block) => block.startsWith('limited: 0 wait\n'));
  expect(limited).toMatch(/^rate +- +5 tokens, 2 more each 1m +-$/m);
});

test('queue of one control point, whatever its name', async () => {
  const { code, out } = await run(['queue', 'a/b']);
  expect(code).toBe(0);
  expect(out).toMatch(/^a\/b: 0 wait\nLIMIT/);
  expect(out).toMatch(/^quota +0 +100 tokens, 1 more each 1s +0$/m);
  const asJson = await run(['queue', 'a/b', '--json']);
  expect(JSON.parse(asJson.out)).toEqual(await served('/v1/queues/a%2Fb'));
  const all = await run(['queue', '--json']);
  expect(JSON.parse(all.out)).toEqual(await served('/v1/queues'));
  expect(await run(['queue', 'none'])).toEqual({
    code: 1,
    out: '',
    err: 'sluice: no policy or model has a control point none (not_found)\n',
  });
});

test('queue says of which limits are what the pools take now', async () => {
  const limits = [
    { key: 'follows', limit: 12, auto: true, in_flight: 5, waiting: 0 },
    { key: 'fixed', limit: 4, in_flight: 0, waiting: 0 },
  ];
  const server = createServer((_request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ control_point: 'gpus', waiting: 0, limits, workloads: [] }));
  });
  onTestFinished(() => void server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const { code, out, err } = await run(['queue', 'gpus'], { url: `http://127.0.0.1:${port}` });
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(out).toMatch(/^follows +5 +12 \(auto\) +0$/m);
  expect(out).toMatch(/^fixed +0 +4 +0$/m);
});

test('queue --requests shows each of them, and whose it is', async () => {
  const { code, out, err } = await run(['queue', 'mistral-prompt', '--requests']);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  const [head, ...rows] = out.trimEnd().split('\n');
  expect(head).toMatch(/^ID +KIND +STATE +WORKLOAD +FAIRNESS KEY +TOKENS +AGE +LEASE$/);
  expect(rows[0]).toMatch(new RegExp(`^${held} +prompt +running +paid +ann +\\d+ +\\d+s +\\d+`));
  expect(rows[1]).toMatch(new RegExp(`^${second} +prompt +waiting +paid +ann +\\d+ +\\d+s`));
  expect(rows).toHaveLength(2);
  const asJson = await run(['queue', '--requests', '--json']);
  expect(JSON.parse(asJson.out)).toEqual(await served('/v1/requests'));
  const none = await run(['queue', 'a/b', '--requests']);
  expect(none.out).toBe('nothing runs and nothing waits\n');
});

test('explain says what a request waits for, and who holds that', async () => {
  const { code, out, err } = await run(['explain', second]);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  const lines = out.trimEnd().split('\n');
  expect(lines[0]).toBe(
    `${second}: waiting at position 1 of its queue, 0 others likely to go before it`,
  );
  expect(lines[1]).toBe(`  waits for   team.user_id=ann: 1 of 1 taken; held by ${held}`);
  expect(lines[2]).toBe('  starts in   about 1s');
  expect(lines).toHaveLength(3);
  expect((await run(['explain', held])).out).toBe(`${held}: running\n`);
  const asJson = await run(['explain', second, '--json']);
  expect(JSON.parse(asJson.out)).toEqual(await served(`/v1/requests/${second}`));
  const unknown = await run(['explain', 'no/body', '--json']);
  expect(unknown).toMatchObject({ code: 1, out: '' });
  expect(JSON.parse(unknown.err).error).toMatchObject({ status: 404 });
});

test('explain of a quota says what it has, and when it has enough', async () => {
  const at = { controlPoint: 'a/b' };
  await submitJob(world, { tokens: '100' }, at);
  const first = await submitJob(world, { tokens: '60' }, at);
  const { out } = await run(['explain', first]);
  expect(out).toMatch(
    new RegExp(
      `^  waits for   quota: \\d+ of 100 tokens there; enough in \\S+; the next are for ${first}$`,
      'm',
    ),
  );
});
