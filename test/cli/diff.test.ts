/** Differences by lines: both texts are in them, and unchanged lines far from a change are not. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { lineDiff } from '../../src/cli/diff.ts';

test('equal texts have none, and a change is shown with three lines around it', () => {
  const lines = Array.from({ length: 20 }, (_, index) => `line ${index}`);
  const before = `${lines.join('\n')}\n`;
  expect(lineDiff(before, before)).toBe('');
  const after = before.replace('line 2\n', 'two\n').replace('line 15\n', '');
  expect(lineDiff(before, after).split('\n')).toEqual([
    ' line 0',
    ' line 1',
    '-line 2',
    '+two',
    ' line 3',
    ' line 4',
    ' line 5',
    '@@',
    ' line 12',
    ' line 13',
    ' line 14',
    '-line 15',
    ' line 16',
    ' line 17',
    ' line 18',
  ]);
  expect(lineDiff('', 'a: 1\nb: 2\n')).toBe('+a: 1\n+b: 2');
});

test('each text can be read from the difference', () => {
  // So short that every line is near a change.
  const text = fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 3 });
  fc.assert(
    fc.property(text, text, (before, after) => {
      fc.pre(before.join() !== after.join());
      const lines = lineDiff(before.join('\n'), after.join('\n')).split('\n');
      const without = (sign: string) =>
        lines.filter((line) => !line.startsWith(sign)).map((line) => line.slice(1));
      expect(without('+')).toEqual(before);
      expect(without('-')).toEqual(after);
    }),
  );
});
