import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SluiceError } from '../../src/errors.ts';
import {
  estimateTokens,
  parseBaggage,
  parsePriority,
  parseTokens,
  validateLabels,
} from '../../src/policy/index.ts';
import { hostileTexts } from './support.ts';

/** The `param` of the invalid request that `act` throws; fails when it throws anything else. */
function refusedParam(act: () => unknown): string | undefined {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(SluiceError);
    if (error instanceof SluiceError) {
      expect(error.code).toBe('invalid_request');
      expect(error.message.length).toBeLessThan(500);
      return error.param;
    }
  }
  throw new Error('nothing was refused');
}

test('priorities are plain decimals from 0.1 to 1000; everything else is refused by name', () => {
  expect(['0.1', '5', '5.0', '05', '1000'].map((text) => parsePriority(text, 'p'))).toEqual([
    0.1, 5, 5, 5, 1000,
  ]);
  const bad = [
    '',
    'NaN',
    '-1',
    '-0',
    '+5',
    'Infinity',
    '1e9',
    '1e2',
    '0x10',
    ' 5',
    '5 ',
    '5,0',
    '0',
    '0.09',
  ];
  for (const text of [...bad, '1000.01', '.5', '5.', '٥', '9'.repeat(10_000), '5\u0000']) {
    expect(refusedParam(() => parsePriority(text, 'labels.priority'))).toBe('labels.priority');
  }
});

test('tokens are whole numbers from 0 to 1e7, 0 counts as 1; everything else is refused by name', () => {
  expect(['0', '1', '007', '10000000'].map((text) => parseTokens(text, 't'))).toEqual([
    1, 1, 7, 10_000_000,
  ]);
  for (const text of ['', 'NaN', '-1', '1.5', '1e3', 'Infinity', '10000001', '9'.repeat(10_000)]) {
    expect(refusedParam(() => parseTokens(text, 'labels.tokens'))).toBe('labels.tokens');
  }
});

test('whatever text is sent as priority or tokens, the result is in range or refused', () => {
  const number = fc.oneof(fc.double().map(String), fc.integer().map(String), fc.string());
  fc.assert(
    fc.property(number, (text) => {
      const inRange = (parse: typeof parsePriority, least: number, most: number) => {
        try {
          const value = parse(text, 'x');
          return value >= least && value <= most;
        } catch (error) {
          return error instanceof SluiceError && error.param === 'x';
        }
      };
      return inRange(parsePriority, 0.1, 1000) && inRange(parseTokens, 1, 10_000_000);
    }),
  );
});

test('labels come back as a frozen copy when they are texts of modest size', () => {
  const labels = validateLabels({ user_id: 'u1', 'http.path': 'é/=,', empty: '' });
  expect(labels).toEqual({ user_id: 'u1', 'http.path': 'é/=,', empty: '' });
  expect(Object.isFrozen(labels)).toBe(true);
});

test('labels that are too many, too long, not text, or hold control characters are refused by name', () => {
  const proto: unknown = JSON.parse('{"__proto__": "x"}');
  const many = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`l${index}`, 'v']));
  const cases: [unknown, string][] = [
    [null, 'labels'],
    [['a'], 'labels'],
    ['a=b', 'labels'],
    [many, 'labels'],
    [{ a: 5 }, 'labels.a'],
    [{ a: null }, 'labels.a'],
    [{ a: Number.NaN }, 'labels.a'],
    [{ a: 'x'.repeat(10_240) }, 'labels.a'],
    [{ a: 'é'.repeat(513) }, 'labels.a'],
    [{ a: 'b\nc' }, 'labels.a'],
    [{ a: '\u0001' }, 'labels.a'],
    [{ a: '\u0085' }, 'labels.a'],
    [{ a: '\ud800' }, 'labels.a'],
    [{ '': 'x' }, 'labels.'],
    [{ 'a\u0000b': 'x' }, 'labels'],
    [{ ['k'.repeat(129)]: 'x' }, 'labels'],
    [proto, 'labels.__proto__'],
  ];
  for (const [given, param] of cases) {
    expect(refusedParam(() => validateLabels(given))).toBe(param);
  }
});

test('the limits of labels are those of the config', () => {
  const limits = { labelBytes: 16, labels: 1, labelsBytes: 100 };
  expect(validateLabels({ a: 'x'.repeat(16) }, limits)).toEqual({ a: 'x'.repeat(16) });
  expect(refusedParam(() => validateLabels({ a: 'x'.repeat(17) }, limits))).toBe('labels.a');
  expect(refusedParam(() => validateLabels({ a: '', b: '' }, limits))).toBe('labels');
  const together = { labelBytes: 16, labels: 3, labelsBytes: 20 };
  const labels = { a: 'x'.repeat(9), é: 'x'.repeat(8) };
  expect(validateLabels(labels, together)).toEqual(labels);
  expect(refusedParam(() => validateLabels({ ...labels, c: '' }, together))).toBe('labels');
});

test('baggage gives labels: values percent-decoded, properties ignored, spaces around allowed', () => {
  expect(parseBaggage('user_id=u1,workload=paid')).toEqual({ user_id: 'u1', workload: 'paid' });
  expect(parseBaggage(' a = 1 ; ttl=5;flag ,\tb=x%20y%2Cz=%C3%A9 ')).toEqual({
    a: '1',
    b: 'x y,z=é',
  });
  expect(parseBaggage('')).toEqual({});
  expect(parseBaggage('a=1,,')).toEqual({ a: '1' });
  expect(parseBaggage('a=')).toEqual({ a: '' });
});

test('any labels survive the way through a baggage header', () => {
  const key = fc
    .stringMatching(/^[A-Za-z0-9_.!#$%&'*+^`|~-]{1,64}$/)
    .filter((k) => k !== '__proto__');
  const value = fc
    .oneof(fc.string({ unit: 'grapheme', maxLength: 50 }), fc.constantFrom(...hostileTexts))
    .filter((text) => text.isWellFormed() && !/[\p{Cc}\u2028\u2029]/u.test(text));
  fc.assert(
    fc.property(fc.dictionary(key, value, { maxKeys: 10, noNullPrototype: true }), (labels) => {
      const members = Object.entries(labels).map(([k, v]) => `${k}=${encodeURIComponent(v)}`);
      expect(parseBaggage(members.join(','))).toEqual(labels);
    }),
  );
});

test('malformed baggage is refused as a whole, never read in part', () => {
  const bad = [
    'a',
    '=x',
    'a b=1',
    'a=x y',
    'a="x"',
    'a=\\',
    'a=é',
    'a=%',
    'a=%zz',
    'a=%ff',
    'a=1,b',
  ];
  for (const header of [...bad, 'a=1,a=2', 'é=1', ';a=1', `a=${'x'.repeat(10_240)}`]) {
    expect(refusedParam(() => parseBaggage(header))).toBe('Sluice-Labels');
  }
  expect(refusedParam(() => parseBaggage('a=%00'))).toBe('labels.a');
  expect(refusedParam(() => parseBaggage(`a=${'x'.repeat(2000)}`))).toBe('labels.a');
  expect(refusedParam(() => parseBaggage('__proto__=x'))).toBe('labels.__proto__');
});

test('headers of thousands of spaces are refused in a time that grows with their length only', () => {
  const start = performance.now();
  for (let round = 0; round < 50; round += 1) {
    for (const header of ['a', 'a=', 'a=x']) {
      const hostile = `${header}${' '.repeat(8100)}"`;
      expect(refusedParam(() => parseBaggage(hostile))).toBe('Sluice-Labels');
    }
  }
  // About 10 ms; the obvious regular expression, with spaces on both sides, took two seconds.
  expect(performance.now() - start).toBeLessThan(500);
});

test('the estimate is a quarter of the characters and the answer, and never leaves its range', () => {
  expect(estimateTokens({ promptChars: 0 })).toBe(256);
  expect(estimateTokens({ promptChars: 401, maxTokens: 100 })).toBe(201);
  expect(estimateTokens({ promptChars: 0, maxTokens: 0 })).toBe(1);
  expect(estimateTokens({ promptChars: 1e9, maxTokens: 10_000_000 })).toBe(10_000_000);
  for (const maxTokens of [Number.NaN, -1, 1.5, 1e12, Number.POSITIVE_INFINITY]) {
    expect(refusedParam(() => estimateTokens({ promptChars: 1, maxTokens }))).toBe('max_tokens');
  }
});
