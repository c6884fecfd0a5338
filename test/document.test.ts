import fc from 'fast-check';
import Type from 'typebox';
import { expect, test } from 'vitest';
import {
  didYouMean,
  duration,
  formatDuration,
  isPrintable,
  parseDuration,
  problemsOf,
  shown,
} from '../src/document.ts';
import { errorTable, SluiceError } from '../src/errors.ts';

test('durations are read in the syntax of Go', () => {
  const read = ['0', '60s', '1m30s', '500ms', '2h', '1.5s', '.5s', '1h0.5m', '999us', '1µs', '1ns'];
  expect(read.map(parseDuration)).toEqual([
    0, 60_000, 90_000, 500, 7_200_000, 1500, 500, 3_630_000, 1, 0, 0,
  ]);
  for (const text of [
    '',
    '5',
    '-5s',
    '+5s',
    's',
    '5 s',
    '5d',
    '1e3s',
    'NaNs',
    `${'9'.repeat(30)}h`,
  ]) {
    expect(parseDuration(text), text).toBeUndefined();
  }
});

test('every number of milliseconds is written and read back unchanged', () => {
  fc.assert(
    fc.property(fc.nat(1e12), (ms) => {
      expect(parseDuration(formatDuration(ms))).toBe(ms);
    }),
  );
});

test('all problems are listed, however many there are', () => {
  const fields = Array.from({ length: 40 }, (_, index) => `f${index}`);
  const schema = Type.Object(Object.fromEntries(fields.map((name) => [name, Type.Integer()])));
  const value = Object.fromEntries(fields.map((name) => [name, 'x']));
  expect(problemsOf(schema, value)).toHaveLength(40);
  expect(problemsOf(schema, {})).toHaveLength(40);
});

test('inherited names are no fields, and odd keys are quoted in paths', () => {
  const schema = Type.Object({ a: Type.Record(Type.String(), Type.Integer()) });
  const value: unknown = JSON.parse('{"a": {"x/y.z": "s"}, "constructor": 1, "__proto__": 2}');
  expect(problemsOf(schema, value, 'root').map(({ path }) => path)).toEqual([
    'root.a["x/y.z"]',
    'root.constructor',
    'root.__proto__',
  ]);
  expect(problemsOf(schema, {}).map(({ path }) => path)).toEqual(['a']);
});

test('a duration outside its range is refused with the range', () => {
  const schema = duration(1000, 60_000);
  expect(problemsOf(schema, '1s')).toEqual([]);
  expect(problemsOf(schema, '61s')).toEqual([
    {
      path: '',
      reason: 'must be a duration from 1s to 1m, such as "60s", "1m30s" or "500ms", not "61s"',
    },
  ]);
  expect(problemsOf(schema, 5)).toHaveLength(1);
});

test('a name is suggested only when it is close', () => {
  const known = ['max_concurrency', 'port', 'selectors'];
  expect(didYouMean('maxConcurrency', known)).toContain('`max_concurrency`');
  expect(didYouMean('prot', known)).toContain('`port`');
  expect(didYouMean('colour', known)).toBe('');
  expect(didYouMean('x', [])).toBe('');
});

test('values are shown short and on one line', () => {
  expect(shown('x'.repeat(10_240)).length).toBeLessThan(80);
  expect(shown('a\nb')).toBe('"a\\nb"');
  expect([null, [], [1, 2], {}, 1].map(shown)).toEqual([
    ...['nothing', 'an empty list', 'a list of 2', 'a mapping', '1'],
  ]);
});

test('control characters and broken Unicode are not printable', () => {
  expect(['', 'a b', 'é', '🙂'].every(isPrintable)).toBe(true);
  expect(['\u0000', 'a\n', '\u007f', '\u0085', '\u2028', '\ud83d'].some(isPrintable)).toBe(false);
});

test('every code has an HTTP and a gRPC status, and an error carries what it was given', () => {
  for (const { http, grpc } of Object.values(errorTable)) {
    expect(http).toBeGreaterThanOrEqual(400);
    expect(http).toBeLessThan(600);
    expect(grpc).toBeGreaterThanOrEqual(1);
    expect(grpc).toBeLessThanOrEqual(16);
  }
  const cause = new Error('why');
  const error = new SluiceError('queue_full', 'full', { retryAfterMs: 5, param: 'p', cause });
  expect(error).toMatchObject({
    name: 'SluiceError',
    code: 'queue_full',
    retryAfterMs: 5,
    param: 'p',
    cause,
  });
  expect('cause' in new SluiceError('internal', 'x')).toBe(false);
});
