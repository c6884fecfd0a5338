/** A follower gives every event once and in order, whatever of the messages is lost, late or doubled. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type Answer,
  type EventId,
  encodeAnswer,
  Follower,
  idText,
  isAfter,
  type NodeEvent,
} from '../../src/stream/index.ts';

/** What an answer's stream in Redis does, without Redis. */
class Stream {
  readonly entries: { id: EventId; events: readonly string[]; answer?: Answer }[] = [];

  read = async (after: EventId) => {
    const page = this.entries.filter(({ id }) => isAfter(id, after)).slice(0, 2);
    const isLast = page.length < 2;
    // Redis answers later than it reads: what is published meanwhile comes first.
    await Promise.resolve();
    return { entries: page, isLast };
  };

  append(attempt: number, count: number, events: readonly string[]): NodeEvent {
    this.entries.push({ id: { attempt, count }, events });
    return { id: 'x', at: idText({ attempt, count }), events };
  }

  end(attempt: number, count: number, events: readonly string[]): NodeEvent {
    const answer = { status: 200, contentType: 'text/event-stream', events };
    const id = { attempt, count: count + 1 };
    this.entries.push({ id, events, answer });
    return { id: 'x', state: 'done', at: idText(id), answer: encodeAnswer(answer) };
  }
}

/** Everything it gives until the end, with the ids that its clients would see. */
async function readAll(follower: Follower): Promise<{ texts: string[]; ids: string[] }> {
  const texts: string[] = [];
  const ids: string[] = [];
  for (;;) {
    const piece = await follower.next();
    if (piece.kind === 'end') return { texts, ids };
    if (piece.kind !== 'events') continue;
    const first = piece.last.count - piece.texts.length + 1;
    for (const [index, text] of piece.texts.entries()) {
      texts.push(text);
      ids.push(idText({ attempt: piece.last.attempt, count: first + index }));
    }
  }
}

const fate = fc.constantFrom('heard', 'lost', 'doubled', 'late', 'without events');

test('every event comes once and in order, whatever happens to the messages', async () => {
  const entry = fc.record({ events: fc.integer({ min: 1, max: 4 }), fate });
  const history = fc.record({
    entries: fc.array(entry, { maxLength: 12 }),
    lastEvents: fc.integer({ min: 0, max: 3 }),
    endIsHeard: fc.boolean(),
    gapAt: fc.option(fc.nat(12)),
    readsEagerly: fc.boolean(),
  });
  const property = fc.asyncProperty(history, async (given) => {
    const stream = new Stream();
    const follower = new Follower(stream.read, undefined, false);
    const reading = given.readsEagerly ? readAll(follower) : undefined;
    const late: NodeEvent[] = [];
    let count = 0;
    const next = (events: number) =>
      Array.from({ length: events }, () => {
        count += 1;
        return `e${count}`;
      });
    for (const [index, { events, fate }] of given.entries.entries()) {
      const texts = next(events);
      const { events: told, ...message } = stream.append(1, count, texts);
      if (fate === 'late') late.push({ ...message, events: texts });
      else if (fate === 'without events') follower.hear(message);
      else if (fate !== 'lost') follower.hear({ ...message, events: told ?? [] });
      if (fate === 'doubled') follower.hear({ ...message, events: texts });
      if (index === given.gapAt) follower.fallBehind();
      await Promise.resolve();
    }
    for (const message of late) follower.hear(message);
    const last = next(given.lastEvents);
    const end = stream.end(1, count, last);
    follower.finish({ state: 'done' }, given.endIsHeard ? end : undefined);
    const { texts, ids } = await (reading ?? readAll(follower));
    const numbers = Array.from({ length: count }, (_, index) => index + 1);
    expect(texts).toEqual(numbers.map((number) => `e${number}`));
    expect(ids).toEqual(numbers.map((number) => `1-${number}`));
  });
  await fc.assert(property, { numRuns: 2_000 });
});

test('it goes on after any event, also in the middle of an entry', async () => {
  const stream = new Stream();
  stream.append(1, 3, ['a', 'b', 'c']);
  stream.append(1, 5, ['d', 'e']);
  stream.end(1, 6, ['f']);
  for (let seen = 0; seen <= 6; seen++) {
    const follower = new Follower(stream.read, { attempt: 1, count: seen });
    follower.finish({ state: 'done' });
    expect((await readAll(follower)).texts.join('')).toBe('abcdef'.slice(seen));
  }
});

test('another attempt begins anew, and what an older one says after that is not heard', async () => {
  const stream = new Stream();
  const follower = new Follower(stream.read, undefined, false);
  follower.hear(stream.append(1, 2, ['a', 'b']));
  follower.hear(stream.append(2, 1, ['A']));
  follower.hear({ id: 'x', at: '1-3', events: ['c'] });
  follower.hear(stream.append(2, 2, ['B']));
  follower.finish({ state: 'done' }, stream.end(2, 2, []));
  const { texts, ids } = await readAll(follower);
  expect(texts).toEqual(['a', 'b', 'A', 'B']);
  expect(ids).toEqual(['1-1', '1-2', '2-1', '2-2']);
});

test('what its client does not take stays in Redis', async () => {
  const stream = new Stream();
  let reads = 0;
  const read = (after: EventId) => {
    reads += 1;
    return stream.read(after);
  };
  const follower = new Follower(read, undefined, false);
  const text = 'x'.repeat(1_000);
  for (let count = 1; count <= 2_000; count++) follower.hear(stream.append(1, count, [text]));
  follower.finish({ state: 'done' }, stream.end(1, 2_000, []));
  // What it holds by itself, before it reads anything: a bounded part of two million characters.
  let held = 0;
  for (;;) {
    const piece = await follower.next();
    if (reads > 0) break;
    if (piece.kind === 'events') held += piece.texts.length;
  }
  expect(held).toBeGreaterThan(100);
  expect(held).toBeLessThan(300);
  const rest = await readAll(follower);
  expect(rest.ids.at(-1)).toBe('1-2000');
});

test('an end without an answer comes after what was said before', async () => {
  const stream = new Stream();
  const follower = new Follower(stream.read, undefined, false);
  stream.append(1, 2, ['a', 'b']);
  follower.finish({ state: 'failed', code: 'upstream_failed' });
  expect((await readAll(follower)).texts).toEqual(['a', 'b']);
  expect(await follower.next()).toMatchObject({ kind: 'end', end: { code: 'upstream_failed' } });
});
