/** Steps as function libraries: side by side, loaded where they are missing, errors in people's terms. */

import { expect, test } from 'vitest';
import { loadScript } from '../../src/admission/scripts.ts';
import { testRedis } from '../support/redis.ts';
import { newWorld, policyDocument, settings, World } from './world.ts';

test('the name tells one text from another', () => {
  const [one, same] = [loadScript('submit'), loadScript('submit')];
  const other = loadScript('submit', (_, source) => `${source}\n-- another version`);
  expect(one.name).toMatch(/^sluice_submit_[0-9a-f]{12}$/);
  expect(same.name).toBe(one.name);
  expect(other.name).not.toBe(one.name);
});

test('a server that has lost its libraries is given them again, in the middle of a life', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }));
  const id = await world.add();
  await world.redis.function('FLUSH');
  expect(await world.end(id)).toEqual({ status: 'ended', state: 'done' });
  await world.check();
});

test('two versions serve one domain side by side', async () => {
  const server = await testRedis();
  try {
    const world = new World(server.connect(), {});
    const other = new World(
      server.connect(),
      {},
      {
        domain: world.domain,
        patch: (_, source) => `${source}\n-- the version of tomorrow`,
      },
    );
    await world.policies(policyDocument({ max: 1 }));
    other.adopt(world);
    const first = await world.add({ user: 'a' });
    const second = await other.add({ user: 'b' });
    expect(await world.admitted()).toEqual([first]);
    await other.end(first);
    expect(await world.admitted()).toEqual([second]);
    await world.end(second);
    await world.check();
  } finally {
    await server.stop();
  }
});

test('an error in a step names its Lua file and line', async () => {
  const server = await testRedis();
  try {
    const patch = (_: string, source: string) =>
      source.replace(
        'function tree.pass(path, cost)',
        'function tree.pass(path, cost) error("broken")',
      );
    const world = new World(server.connect(), settings, { patch });
    await world.policies(policyDocument({ max: 1 }));
    await expect(world.add()).rejects.toThrow(/^step submit: .*lua\/lib\/shares\.lua:\d+: broken/);
  } finally {
    await server.stop();
  }
});
