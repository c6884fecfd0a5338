/**
 * Virtual time begins a new turn before its numbers leave what a double can hold, once in years. Here
 * a turn is so short that it happens all the time: the order is still that of the model, which has
 * no turns.
 */

import { expect, test } from 'vitest';
import { runHistories } from './run.ts';
import { themes } from './themes.ts';

test('tags survive the turns of virtual time', async () => {
  const patch = (step: string, source: string) => {
    // These have nothing to do with the order.
    if (step === 'claim' || step === 'cache') return source;
    expect(source).toContain('2 ^ 52');
    return source.replace('2 ^ 52', '2 ^ 20');
  };
  const theme = { ...themes.slots, costs: [1, 30, 100, 100, 150] };
  await runHistories({ theme, runs: 100, patch });
}, 300_000);
