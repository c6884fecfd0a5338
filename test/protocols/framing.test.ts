/** However the bytes of a reply are cut, its events are the same, and none grows without bound. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MalformedReply, splitter } from '../../src/protocols/index.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

function split(framing: 'sse' | 'ndjson', chunks: readonly Uint8Array[], limit = 1000): string[] {
  const events = splitter(framing, limit);
  return [...chunks.flatMap((chunk) => events.push(chunk)), ...events.end()];
}

test.each([
  ['one event', 'data: a\n\n', ['a']],
  ['no space after the colon', 'data:a\n\n', ['a']],
  ['only one space is taken off', 'data:  a\n\n', [' a']],
  ['several lines of data', 'data: a\ndata: b\n\n', ['a\nb']],
  ['CR', 'data: a\rdata: b\r\rdata: c\r\r', ['a\nb', 'c']],
  ['CRLF', 'data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n', ['a\nb', 'c']],
  ['mixed line ends', 'data: a\r\n\rdata: b\n\r\ndata: c\r\r\n', ['a', 'b', 'c']],
  ['comments', ': ping\n\ndata: a\n: more\ndata: b\n\n', ['a\nb']],
  ['other fields', 'id: 1\nevent: x\nretry: 5\ndatabase: no\ndata: a\n\n', ['a']],
  ['a field without a colon', 'data\n\ndata\ndata\n\n', ['', '\n']],
  ['an event without data', 'event: x\n\ndata: a\n\n', ['a']],
  ['many blank lines', '\n\n\ndata: a\n\n\n\n', ['a']],
  ['a byte order mark', '\uFEFFdata: a\n\n', ['a']],
  ['a mark that is text', 'data: \uFEFFa\n\n\uFEFFdata: b\n\n', ['\uFEFFa']],
  ['no blank line at the end', 'data: a\n\ndata: b\n', ['a', 'b']],
  ['no line end at the end', 'data: a\n\ndata: [DONE]', ['a', '[DONE]']],
  ['names are told by case', 'Data: a\ndata: b\n\n', ['b']],
  ['a colon in the data', 'data: {"a": "b: c"}\n\n', ['{"a": "b: c"}']],
  ['no bytes at all', '', []],
])('server-sent events: %s', (_, text, expected) => {
  expect(split('sse', [bytes(text)])).toEqual(expected);
});

test.each([
  ['lines', '{"a":1}\n{"b":2}\n', ['{"a":1}', '{"b":2}']],
  ['blank lines', '\n{"a":1}\n\n \r\n{"b":2}\n', ['{"a":1}', '{"b":2}']],
  ['CRLF', '{"a":1}\r\n{"b":2}\r\n', ['{"a":1}', '{"b":2}']],
  ['no line end at the end', '{"a":1}\n{"b":2}', ['{"a":1}', '{"b":2}']],
  ['a CR alone ends nothing', '{"a":\r1}\n', ['{"a":\r1}']],
])('NDJSON: %s', (_, text, expected) => {
  expect(split('ndjson', [bytes(text)])).toEqual(expected);
});

const everything = [
  '\uFEFF: comment ü\r\n',
  'data: {"content": "héllo 世界 🎉"}\n\n',
  'event: x\rid: 7\rdata: one\rdata: two\r\r',
  'data: a\r\ndata: b\r\n\r\n',
  'data: [DONE]',
].join('');

test('every place to cut a stream gives the same events', () => {
  const whole = bytes(everything);
  const expected = ['{"content": "héllo 世界 🎉"}', 'one\ntwo', 'a\nb', '[DONE]'];
  for (let at = 0; at <= whole.length; at++) {
    expect(split('sse', [whole.slice(0, at), whole.slice(at)]), `cut at ${at}`).toEqual(expected);
  }
  expect(
    split(
      'sse',
      [...whole].map((byte) => Uint8Array.of(byte)),
    ),
  ).toEqual(expected);
});

const piece = fc.constantFrom(
  'data',
  ':',
  ' ',
  '\r',
  '\n',
  '\r\n',
  'ü',
  '🎉',
  '\uFEFF',
  'x',
  '\n\n',
);

test.each(['sse', 'ndjson'] as const)('however %s is cut, the events are the same', (framing) => {
  fc.assert(
    fc.property(fc.array(piece), fc.array(fc.nat(200)), (pieces, cuts) => {
      const whole = bytes(pieces.join(''));
      const places = [0, ...cuts.toSorted((a, b) => a - b), whole.length];
      const chunks = places.slice(1).map((to, index) => whole.slice(places[index], to));
      expect(split(framing, chunks)).toEqual(split(framing, [whole]));
    }),
  );
});

test('data that is written as the standard says is read back', () => {
  const data = fc.array(fc.stringMatching(/^[^\r\n]*$/), { minLength: 1 });
  fc.assert(
    fc.property(fc.array(data), fc.constantFrom('\n', '\r', '\r\n'), (events, end) => {
      const text = events
        .map((lines) => lines.map((line) => `data: ${line}${end}`).join('') + end)
        .join('');
      // What UTF-8 cannot say is U+FFFD before it is sent.
      const expected = events.map((lines) => lines.map((line) => line.toWellFormed()).join('\n'));
      expect(split('sse', [bytes(text)], 1e6)).toEqual(expected);
    }),
  );
});

test.each(['sse', 'ndjson'] as const)('%s that is not UTF-8 is malformed', (framing) => {
  const broken = Uint8Array.of(...bytes('data: a'), 0xff, ...bytes('\n\n'));
  expect(() => split(framing, [broken])).toThrow(MalformedReply);
  const cut = bytes('data: ü').slice(0, -1);
  expect(() => split(framing, [cut])).toThrow(MalformedReply);
});

test('an event of just the size is taken, one byte more is not', () => {
  const sized = (size: number) => [bytes(`data: ${'x'.repeat(size)}\n\n`)];
  expect(split('sse', sized(100), 100)).toEqual(['x'.repeat(100)]);
  expect(() => split('sse', sized(101), 100)).toThrow(MalformedReply);
  expect(split('ndjson', [bytes(`${'x'.repeat(100)}\n`)], 100)).toHaveLength(1);
  expect(() => split('ndjson', [bytes(`${'x'.repeat(101)}\n`)], 100)).toThrow(MalformedReply);
  const two = (first: number, second: number) => [
    bytes(`data: ${'x'.repeat(first)}\ndata: ${'x'.repeat(second)}\n\n`),
  ];
  expect(split('sse', two(50, 49), 100)).toHaveLength(1);
  expect(() => split('sse', two(50, 50), 100)).toThrow(MalformedReply);
  const lines = [bytes(`data: ${'x'.repeat(60)}\ndata: ${'x'.repeat(60)}\n\n`)];
  expect(() => split('sse', lines, 100)).toThrow('larger than 100 bytes');
});

test('many events that are small each have no bound together', () => {
  const event = bytes(`data: ${'x'.repeat(90)}\n\n`);
  const events = Array.from({ length: 1000 }, () => event);
  expect(split('sse', events, 100)).toHaveLength(1000);
});

test.each(['sse', 'ndjson'] as const)(
  '%s: too much is refused as soon as it is there',
  (framing) => {
    const events = splitter(framing, 1024 * 1024);
    const part = bytes('x'.repeat(64 * 1024));
    if (framing === 'sse') events.push(bytes('data: '));
    let pushed = 0;
    const pushAll = () => {
      for (; pushed < 160; pushed++) events.push(part);
    };
    expect(pushAll).toThrow(MalformedReply);
    expect(pushed).toBe(16);
  },
);

test.each(['sse', 'ndjson'] as const)(
  '%s: 10 MB in small pieces take time in proportion',
  (framing) => {
    const events = splitter(framing, 20e6);
    const part = bytes('x'.repeat(100));
    const startedAt = performance.now();
    if (framing === 'sse') events.push(bytes('data: '));
    for (let index = 0; index < 100_000; index++) events.push(part);
    const [line] = [...events.push(bytes('\n\n')), ...events.end()];
    // Quadratic, this copies 500 GB.
    expect(performance.now() - startedAt).toBeLessThan(5000);
    expect(line).toHaveLength(10_000_000);
  },
);
