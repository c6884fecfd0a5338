/** What arrives together shares one call, in order and within bounds; what fails, fails alone. */

import { expect, test } from 'vitest';
import { Batch } from '../../src/admission/batch.ts';
import { newWorld, policyDocument } from './world.ts';

function recorded(limits: { items: number; bytesOf?: (item: string) => number }) {
  const calls: (readonly string[])[] = [];
  const batch = new Batch<string, string>(
    async (items) => {
      calls.push(items);
      if (items.includes('bad')) throw new Error('the call failed');
      return items.map((item) => `${item}!`);
    },
    { ...limits, items: () => limits.items },
  );
  return { batch, calls };
}

test('items of one turn go out in one call, in order; the next turn has its own', async () => {
  const { batch, calls } = recorded({ items: 10 });
  const first = Promise.all(['a', 'b', 'c'].map((item) => batch.add(item)));
  expect(calls).toEqual([]);
  expect(await first).toEqual(['a!', 'b!', 'c!']);
  expect(await batch.add('d')).toBe('d!');
  expect(calls).toEqual([['a', 'b', 'c'], ['d']]);
});

test('a call has a bounded number of items and of bytes; a large item goes alone', async () => {
  const { batch, calls } = recorded({ items: 2 });
  await Promise.all(['a', 'b', 'c', 'd', 'e'].map((item) => batch.add(item)));
  expect(calls).toEqual([['a', 'b'], ['c', 'd'], ['e']]);

  const mega = 1024 * 1024;
  const sized = recorded({
    items: 10,
    bytesOf: (item) => (item === 'large' ? 2 * mega : mega / 2),
  });
  await Promise.all(['a', 'b', 'c', 'large', 'd'].map((item) => sized.batch.add(item)));
  expect(sized.calls).toEqual([['a', 'b'], ['c'], ['large'], ['d']]);
});

test('a call that fails rejects its own items and no others', async () => {
  const { batch } = recorded({ items: 2 });
  const results = await Promise.allSettled(['a', 'bad', 'c'].map((item) => batch.add(item)));
  expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'fulfilled']);
});

test('a submission that is none fails alone: what shares its turn is accepted', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 5 }));
  const bad = world.submit({ id: 'not an id' });
  const good = world.submit({ user: 'a' });
  await expect(bad).rejects.toThrow('not a request id');
  expect(await good).toEqual({ status: 'accepted', state: 'admitted' });
});

test('the same id twice in one turn is one request; an end repeated in one turn counts once', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 5 }));
  const id = world.newId();
  const [first, second] = await Promise.all([world.submit({ id }), world.submit({ id })]);
  expect(first).toMatchObject({ status: 'accepted', state: 'admitted' });
  expect(second).toEqual({ status: 'known', state: 'admitted' });
  const ends = await Promise.all([world.end(id), world.end(id)]);
  expect(ends).toEqual([
    { status: 'ended', state: 'done' },
    { status: 'already', state: 'done' },
  ]);
  await world.check();
});
