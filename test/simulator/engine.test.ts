import { expect, test } from 'vitest';
import { type Clock, Engine, systemClock, type Timing } from '../../src/simulator/engine.ts';
import { Gpu } from '../../src/simulator/gpu.ts';

/** A clock that moves only when told to, and knows every timer. */
class FakeClock implements Clock {
  time = 1_000_000;
  readonly timers = new Map<number, { at: number; fire: () => void }>();
  fired = 0;
  #next = 1;

  now(): number {
    return this.time;
  }

  after(delayMs: number, fire: () => void): () => void {
    const id = this.#next++;
    this.timers.set(id, { at: this.time + delayMs, fire });
    return () => this.timers.delete(id);
  }

  /** Move on, timer by timer; `lateMs` is how late each fires. */
  advance(ms: number, lateMs = 0): void {
    const until = this.time + ms;
    for (;;) {
      const [first] = [...this.timers].sort(([, one], [, other]) => one.at - other.at);
      if (!first || first[1].at + lateMs > until) break;
      this.timers.delete(first[0]);
      this.time = Math.max(this.time, first[1].at + lateMs);
      this.fired += 1;
      first[1].fire();
    }
    this.time = until;
  }
}

function world(speed = 1, slots = 2) {
  const clock = new FakeClock();
  const gpu = new Gpu({ slots, prefillTokensPerSecond: 1000, stepMs: 60, stepPerRequestMs: 5 });
  return { clock, gpu, engine: new Engine({ gpu, clock, speed }) };
}

test('one timer at a time, and one firing per event instead of one per token', () => {
  const { clock, engine } = world();
  const ends: number[] = [];
  for (const answerTokens of [400, 300, 200]) {
    engine.run({ promptTokens: 100, answerTokens }, { ended: () => ends.push(answerTokens) });
    expect(clock.timers.size).toBe(1);
  }
  clock.advance(120_000);
  expect(ends).toEqual([300, 400, 200]);
  expect(clock.timers.size).toBe(0);
  expect(clock.fired).toBeLessThanOrEqual(6); // three prefills, three ends
});

test('the speed divides every time that is told', () => {
  const { clock, engine } = world(10);
  let timing: Timing | undefined;
  engine.run({ promptTokens: 100, answerTokens: 100 }, { ended: (told) => (timing = told) });
  clock.advance(659);
  expect(timing).toBeUndefined();
  clock.advance(2);
  expect(timing?.prefillMs).toBeCloseTo(10, 6);
  expect(timing?.decodeMs).toBeCloseTo(650, 6);
  expect(timing?.totalMs).toBeCloseTo(660, 6);
});

test('a late timer delays what is told, never what is computed', () => {
  const { clock, engine } = world();
  const totals: number[] = [];
  for (let index = 0; index < 3; index++) {
    engine.run(
      { promptTokens: 1, answerTokens: 10, groupTokens: 1 },
      { ended: ({ totalMs }) => totals.push(totalMs) },
    );
  }
  clock.advance(60_000, 37);
  // The first two share a prefill of 2 ms and decode at 70 ms; the third follows alone at 65 ms.
  expect(totals).toHaveLength(3);
  expect(totals[0]).toBeCloseTo(702, 6);
  expect(totals[2]).toBeCloseTo(702 + 1 + 650, 6);
});

test('a request that is taken back hears nothing more, and the next one starts at once', () => {
  const { clock, engine, gpu } = world(1, 1);
  const heard: string[] = [];
  const takeBack = engine.run(
    { promptTokens: 10, answerTokens: 100, groupTokens: 1 },
    { tokens: () => heard.push('first'), ended: () => heard.push('first ended') },
  );
  engine.run(
    { promptTokens: 10, answerTokens: 1 },
    { entered: () => heard.push('second entered'), ended: () => heard.push('second ended') },
  );
  clock.advance(100);
  takeBack();
  takeBack();
  expect(heard).toEqual(['first', 'second entered']);
  clock.advance(1000);
  expect(heard).toEqual(['first', 'second entered', 'second ended']);
  expect(gpu.running + gpu.queued).toBe(0);
});

test('a request may take another back while it is told of its own end', () => {
  const { clock, engine } = world(1, 3);
  const heard: string[] = [];
  const work = { promptTokens: 10, answerTokens: 5 };
  const others: (() => void)[] = [];
  engine.run(work, {
    ended: () => {
      heard.push('first');
      for (const takeBack of others) takeBack();
    },
  });
  // All three end in the same instant: the second hears nothing, the third all the same.
  others.push(engine.run(work, { ended: () => heard.push('second') }));
  engine.run(work, { ended: () => heard.push('third') });
  clock.advance(10_000);
  expect(heard).toEqual(['first', 'third']);
});

test('after stop nothing is told and no timer is left', () => {
  const { clock, engine, gpu } = world();
  const heard: string[] = [];
  for (let index = 0; index < 5; index++) {
    engine.run({ promptTokens: 10, answerTokens: 5 }, { ended: () => heard.push('ended') });
  }
  engine.stop();
  clock.advance(10_000);
  expect(heard).toEqual([]);
  expect(clock.timers.size + gpu.running + gpu.queued).toBe(0);
});

test('the system clock fires after the delay, and not once it was called off', async () => {
  const start = systemClock.now();
  const callOff = systemClock.after(1, () => expect.unreachable());
  callOff();
  await new Promise<void>((resolve) => systemClock.after(5.4, resolve));
  expect(systemClock.now() - start).toBeGreaterThanOrEqual(4.9);
});

test('who takes a request back hears how many tokens are written, and nothing after its end', () => {
  const { clock, engine } = world(10, 1);
  const run = () => engine.run({ promptTokens: 100, answerTokens: 100 }, { ended: () => {} });
  const first = run();
  const second = run();
  expect(second()).toBe(0); // it still waits
  clock.advance(10 + 6.5 * 3.5); // the prefill, and three tokens and a half
  expect(first()).toBe(3);
  expect(first()).toBeUndefined();
  const third = run();
  clock.time += 10_000; // its timer is late
  expect(third()).toBe(100);
  const fourth = run();
  clock.advance(10_000);
  expect(fourth()).toBeUndefined();
});

test('whole tokens are counted as whole, group by group', () => {
  for (const groupTokens of [1, 3, 7]) {
    const { clock, engine } = world(1, 1);
    const takeBack = engine.run(
      { promptTokens: 100, answerTokens: 100, groupTokens },
      { ended: () => {} },
    );
    clock.advance(100 + 65 * 8 + 1);
    expect(takeBack()).toBe(8);
  }
});
