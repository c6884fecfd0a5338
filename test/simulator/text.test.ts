import fc from 'fast-check';
import { expect, test } from 'vitest';
import { answerTo, countTokens, embed } from '../../src/simulator/text.ts';

const length = { min: 160, max: 440 };

test('the same prompt gives the same answer, another prompt another one', () => {
  expect(answerTo('Why is the sky blue?', length)).toEqual(
    answerTo('Why is the sky blue?', length),
  );
  expect(answerTo('Why is the sky blue?', length)).not.toEqual(answerTo('Why is it?', length));
});

test('lengths stay within the bounds and differ between prompts', () => {
  const lengths = new Set<number>();
  fc.assert(
    fc.property(fc.string(), (prompt) => {
      const { tokens, finishReason } = answerTo(prompt, length);
      expect(tokens.length).toBeGreaterThanOrEqual(160);
      expect(tokens.length).toBeLessThanOrEqual(440);
      expect(finishReason).toBe('stop');
      lengths.add(tokens.length);
    }),
  );
  expect(lengths.size).toBeGreaterThan(20);
});

test('a limit cuts the same text short and says so; a limit above the length changes nothing', () => {
  const whole = answerTo('a prompt', length);
  expect(answerTo('a prompt', length, 7)).toEqual({
    tokens: whole.tokens.slice(0, 7),
    finishReason: 'length',
  });
  expect(answerTo('a prompt', length, 441)).toEqual(whole);
});

test('the text reads as sentences of lower-case words', () => {
  const text = answerTo('a prompt', length).tokens.join('');
  expect(text).toMatch(/^([A-Z][a-z]*( [a-z]+){0,13}\.( |$))+$/);
});

test('a prompt has one token per four characters and at least one', () => {
  expect([countTokens(''), countTokens('abcd'), countTokens('abcde')]).toEqual([1, 1, 2]);
});

test('an embedding is a unit vector that follows from the text', () => {
  const vector = embed('text', 64);
  expect(vector).toHaveLength(64);
  expect(Math.hypot(...vector)).toBeCloseTo(1, 9);
  expect(embed('text', 64)).toEqual(vector);
  expect(embed('other', 64)).not.toEqual(vector);
});
