/** `sluice pause`, `resume` and `paused`: nobody is admitted for a time, and everybody keeps the place. */
import { expect, test } from 'vitest';
import { slotValues, submitJob } from '../gateway/policies.ts';
import { newWorld } from '../gateway/world.ts';
import { sluice } from './sluice.ts';

test('who comes to a paused place waits until it is resumed', async () => {
  const policies = [slotValues({}), slotValues({ name: 'nested', controlPoint: 'a/b' })];
  const world = await newWorld({ config: { policies } });
  const { domain } = world.config;
  const run = (...args: string[]) => sluice(args, { url: world.url });
  const says = (out: string) => ({ code: 0, out: `${out}\n`, err: '' });
  expect(await run('paused')).toEqual(says('nothing is paused'));
  for (const [args, place] of [
    [['mistral-prompt'], 'control point mistral-prompt'],
    [['--pool', domain], `pool ${domain}`],
  ] as const) {
    // Both may be repeated.
    for (let turn = 0; turn < 2; turn += 1) {
      expect(await run('pause', ...args)).toEqual(says(`${place} is paused`));
    }
    const id = await submitJob(world);
    await world.until((view) => view.waiting === 1);
    const isPool = place.startsWith('pool');
    const queue = await run('queue', 'mistral-prompt');
    expect(queue.out).toContain(`: 1 waits${isPool ? '' : '; it is paused'}\n`);
    const why = isPool
      ? `pool:${domain}: 0 of 0 taken`
      : 'its control point is paused: sluice resume';
    expect((await run('explain', id)).out).toContain(`  waits for   ${why}\n`);
    const one = await run('paused');
    expect(one.out).toMatch(new RegExp(`^PAUSED +NAME\n${place.replace(/ (\S+)$/, ' +$1')}\n$`));
    for (let turn = 0; turn < 2; turn += 1) {
      expect(await run('resume', ...args)).toEqual(says(`${place} is not paused`));
    }
    await world.idle();
  }
  const nested = await run('pause', 'a/b', '--json');
  expect(JSON.parse(nested.out)).toEqual({ control_points: ['a/b'], pools: [] });
  await run('pause', '--pool', domain);
  const both = await run('paused', '--json');
  expect(JSON.parse(both.out)).toEqual({ control_points: ['a/b'], pools: [domain] });
  const pools = await run('replicas');
  expect(pools.out).toMatch(new RegExp(`^${domain} +0 +0 +1 +\\S+ +yes$`, 'm'));
  await run('resume', 'a/b');
  await run('resume', '--pool', domain);
  expect(await run('paused')).toEqual(says('nothing is paused'));
});

test('one place is named; a pool must be one that there is', async () => {
  const world = await newWorld({ worker: false });
  const run = (...args: string[]) => sluice(args, { url: world.url });
  for (const args of [[], ['a', '--pool', 'b']]) {
    for (const name of ['pause', 'resume']) {
      expect(await run(name, ...args)).toEqual({
        code: 2,
        out: '',
        err: 'sluice: name a control point, or a pool with --pool (usage)\n',
      });
    }
  }
  const unknown = await run('pause', '--pool', 'none');
  expect(unknown).toMatchObject({ code: 1, err: expect.stringContaining('(not_found)') });
  const wrong = await run('pause', 'no such point', '--json');
  expect(wrong.code).toBe(1);
  expect(JSON.parse(wrong.err).error).toMatchObject({ code: 'invalid_request', status: 400 });
});
