import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SluiceError } from '../../src/errors.ts';
import { limitKeyOf, parseLimiter, parseQueueKey } from '../../src/policy/index.ts';
import {
  labelLimit,
  labelLimiter,
  policyLimiter,
  poolLimiter,
  queueKey,
} from '../../src/policy/names.ts';
import { hostileTexts } from './support.ts';

const anyText = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: 'binary' }).filter((value) => value.isWellFormed()),
  fc.array(fc.constantFrom(...hostileTexts), { maxLength: 4 }).map((parts) => parts.join('')),
);
const limiters = fc.array(
  fc.oneof(
    fc.tuple(anyText, anyText, anyText).map((parts) => labelLimiter(...parts)),
    anyText.map(poolLimiter),
    anyText.map(policyLimiter),
  ),
  { maxLength: 4 },
);
const priority = fc.integer({ min: 1, max: 10_000 }).map((tenths) => tenths / 10);
const queueName = fc.record({
  policy: anyText,
  workload: anyText,
  priority,
  fairnessKey: anyText,
  limiters: limiters.filter((keys) => keys.every((key) => key !== '')),
});

test('a queue key reads back as exactly the parts it was written from, so no two queues collide', () => {
  fc.assert(
    fc.property(queueName, (name) => {
      expect(parseQueueKey(queueKey(name))).toEqual(name);
    }),
  );
});

test('a queue key has four segments and no control character, whatever callers put into labels', () => {
  fc.assert(
    fc.property(queueName, (name) => {
      const key = queueKey(name);
      expect(key.split('/')).toHaveLength(4);
      expect(key.split('/')[1]?.split('@')).toHaveLength(2);
      expect(key).toMatch(/^[!-~]+$/);
    }),
  );
});

test('the check for control characters fails on a key that is written without encoding', () => {
  expect(`mistral/work\u0001load@1//`).not.toMatch(/^[!-~]+$/);
  expect('mistral/a/b@1//'.split('/')).not.toHaveLength(4);
});

test('limiter keys read back as what they name, and their limit key is what precedes the value', () => {
  fc.assert(
    fc.property(anyText, anyText, anyText, (policy, label, value) => {
      const key = labelLimiter(policy, label, value);
      expect(limitKeyOf(key)).toBe(labelLimit(policy, label));
      expect(parseLimiter(key)).toEqual({ kind: 'label', policy, label, value });
      expect(parseLimiter(limitKeyOf(key))).toEqual({ kind: 'label', policy, label });
      expect(parseLimiter(policyLimiter(policy))).toEqual({ kind: 'policy', policy });
      expect(parseLimiter(poolLimiter(policy))).toEqual({ kind: 'pool', pool: policy });
    }),
  );
});

test('keys look as the operators see them in redis-cli', () => {
  expect(labelLimiter('mistral', 'user_id', 'u1')).toBe('mistral.user_id=u1');
  expect(labelLimiter('v1.2', 'http.user', 'a=b,c/d@e:f')).toBe(
    'v1%2E2.http%2Euser=a%3Db%2Cc%2Fd%40e%3Af',
  );
  expect(poolLimiter('mistral')).toBe('pool:mistral');
  const parts = { policy: 'mistral', workload: 'paid tier', fairnessKey: 'u1' };
  expect(queueKey({ ...parts, priority: 0.5, limiters: ['pool:mistral', 'mistral'] })).toBe(
    'mistral/paid%20tier@0.5/u1/pool:mistral,mistral',
  );
});

test('what was never written as a queue key is not read as one', () => {
  for (const key of ['', 'a', 'a/b/c/d', 'a/b@1/c', 'a/b@1/c/d/e', 'a/b@1@2/c/d']) {
    expect(parseQueueKey(key)).toBeUndefined();
  }
});

test('half a surrogate pair, which has no encoding, is an invalid request and not a crash', () => {
  expect(() => labelLimiter('mistral', 'user_id', '\ud800')).toThrow(SluiceError);
});
