import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Gpu, type GpuEvent, type GpuOptions, type Work } from '../../src/simulator/gpu.ts';
import { answerTo, countTokens } from '../../src/simulator/text.ts';

const card: GpuOptions = {
  slots: 2,
  prefillTokensPerSecond: 1000,
  stepMs: 60,
  stepPerRequestMs: 5,
};

/** Run until nothing is left, and give every event. */
function drain(gpu: Gpu, events: GpuEvent[] = []): GpuEvent[] {
  for (let at = gpu.nextEventAt(); at !== undefined; at = gpu.nextEventAt()) {
    events.push(...gpu.advance(at));
  }
  return events;
}

function endOf(events: GpuEvent[], id: number): number {
  const event = events.find((candidate) => candidate.id === id && candidate.type === 'ended');
  if (!event) throw new Error(`${id} never ended`);
  return event.at;
}

test('a request alone takes its prefill and then one step a token', () => {
  const gpu = new Gpu(card);
  const events = gpu.arrive(1, { promptTokens: 200, answerTokens: 100 }, 0);
  expect(events).toEqual([{ type: 'entered', id: 1, at: 0 }]);
  drain(gpu, events);
  expect(endOf(events, 1)).toBeCloseTo(200 + 100 * 65, 6);
  expect(gpu.running).toBe(0);
});

test('two at once share the prefill and slow each other in decoding, each by the stated amount', () => {
  const gpu = new Gpu(card);
  const events = gpu.arrive(1, { promptTokens: 100, answerTokens: 10 }, 0);
  events.push(...gpu.arrive(2, { promptTokens: 100, answerTokens: 10 }, 0));
  drain(gpu, events);
  expect(endOf(events, 1)).toBeCloseTo(200 + 10 * 70, 6);
  expect(endOf(events, 2)).toBeCloseTo(200 + 10 * 70, 6);
});

test('rates change exactly when somebody arrives or departs', () => {
  const gpu = new Gpu({ ...card, prefillTokensPerSecond: 1e9 });
  const events = gpu.arrive(1, { promptTokens: 1, answerTokens: 20 }, 0);
  events.push(...gpu.arrive(2, { promptTokens: 1, answerTokens: 5 }, 650)); // 1 has written 10
  drain(gpu, events);
  // Both at 70 ms a token until 2 has its 5, then 1 writes its last 5 alone.
  expect(endOf(events, 2)).toBeCloseTo(650 + 5 * 70, 3);
  expect(endOf(events, 1)).toBeCloseTo(650 + 5 * 70 + 5 * 65, 3);
});

test('beyond the batch size requests wait in arrival order, and a freed place is taken at once', () => {
  const gpu = new Gpu(card);
  const events: GpuEvent[] = [];
  for (const id of [1, 2, 3, 4]) {
    events.push(...gpu.arrive(id, { promptTokens: 10, answerTokens: 10 * id }, 0));
  }
  expect([gpu.running, gpu.queued]).toEqual([2, 2]);
  drain(gpu, events);
  const entered = events.filter(({ type }) => type === 'entered');
  expect(entered.map(({ id }) => id)).toEqual([1, 2, 3, 4]);
  expect(entered[2]?.at).toBe(endOf(events, 1));
  expect(entered[3]?.at).toBe(endOf(events, 2));
});

test('who leaves frees its place for the next in the same instant, waiting or running', () => {
  const gpu = new Gpu(card);
  for (const id of [1, 2, 3, 4]) gpu.arrive(id, { promptTokens: 10, answerTokens: 50 }, 0);
  expect(gpu.leave(3, 100)).toEqual([]);
  expect(gpu.leave(1, 100)).toEqual([{ type: 'entered', id: 4, at: 100 }]);
  expect([gpu.running, gpu.queued]).toEqual([2, 0]);
  expect(gpu.leave(1, 100)).toEqual([]);
  const ended = drain(gpu).filter(({ type }) => type === 'ended');
  expect(ended.map(({ id }) => id)).toEqual([2, 4]);
});

test('groups of tokens are told at their own times, the last with the end', () => {
  const gpu = new Gpu({ ...card, prefillTokensPerSecond: 1e9 });
  const events = gpu.arrive(1, { promptTokens: 1, answerTokens: 10, groupTokens: 4 }, 0);
  drain(gpu, events);
  const seen = events.map((event) => [event.type, Math.round(event.at)]);
  expect(seen).toEqual([
    ['entered', 0],
    ['tokens', 4 * 65],
    ['tokens', 8 * 65],
    ['ended', 10 * 65],
  ]);
});

test('a slowed request takes its factor longer; an answer of no tokens ends with the prefill', () => {
  const gpu = new Gpu(card);
  const events = gpu.arrive(1, { promptTokens: 100, answerTokens: 10, slowdown: 3 }, 0);
  drain(gpu, events);
  expect(endOf(events, 1)).toBeCloseTo(3 * (100 + 650), 6);
  const from = endOf(events, 1);
  const embedding = gpu.arrive(2, { promptTokens: 50, answerTokens: 0 }, from);
  drain(gpu, embedding);
  expect(endOf(embedding, 2)).toBeCloseTo(from + 50, 6);
});

test('by default one answer alone takes 10 to 30 s', () => {
  for (let index = 0; index < 50; index++) {
    const prompt = `Summarize the report number ${index} in plain words, please.`;
    const answer = answerTo(prompt, { min: 160, max: 440 });
    const gpu = new Gpu({ ...card, slots: 4 });
    const work = { promptTokens: countTokens(prompt), answerTokens: answer.tokens.length };
    const seconds = endOf(drain(gpu, gpu.arrive(1, work, 0)), 1) / 1000;
    expect(seconds).toBeGreaterThan(10);
    expect(seconds).toBeLessThan(30);
  }
});

test('by default ten users with 25 prompts each take minutes, not seconds and not hours', () => {
  const gpu = new Gpu({ ...card, slots: 4 });
  const events: GpuEvent[] = [];
  for (let id = 1; id <= 250; id++) {
    const answerTokens = answerTo(`prompt ${id}`, { min: 160, max: 440 }).tokens.length;
    events.push(...gpu.arrive(id, { promptTokens: 20, answerTokens }, 0));
  }
  drain(gpu, events);
  const minutes = (events.at(-1)?.at ?? 0) / 60_000;
  expect(minutes).toBeGreaterThan(5);
  expect(minutes).toBeLessThan(40);
});

/** Arrivals as the reference and the model both take them. */
interface Arrival {
  readonly at: number;
  readonly work: Work;
}

/** The same rules in small fixed ticks: slow, inexact, and independent of the event arithmetic. */
function ticked(arrivals: Arrival[], options: GpuOptions, tickMs: number): number[] {
  const jobs = arrivals.map(({ at, work }) => ({
    at,
    prompt: work.promptTokens,
    answer: work.answerTokens,
    end: -1,
  }));
  for (let now = 0; jobs.some(({ end }) => end < 0); now += tickMs) {
    const batch = jobs.filter(({ at, end }) => at <= now && end < 0).slice(0, options.slots);
    const inPrefill = batch.filter(({ prompt }) => prompt > 0).length;
    for (const job of batch) {
      if (job.prompt > 0) {
        job.prompt -= (tickMs * options.prefillTokensPerSecond) / 1000 / inPrefill;
      } else {
        job.answer -= tickMs / (options.stepMs + batch.length * options.stepPerRequestMs);
        if (job.answer <= 0) job.end = now + tickMs;
      }
    }
  }
  return jobs.map(({ end }) => end);
}

function modelled(arrivals: Arrival[], options: GpuOptions): number[] {
  const gpu = new Gpu(options);
  const events: GpuEvent[] = [];
  arrivals.forEach(({ at, work }, id) => {
    events.push(...gpu.arrive(id, work, at));
  });
  drain(gpu, events);
  return arrivals.map((_, id) => endOf(events, id));
}

function worstGapMs(one: number[], other: number[]): number {
  return Math.max(...one.map((value, index) => Math.abs(value - (other[index] ?? 0))));
}

const anyArrivals = fc
  .array(
    fc.record({
      gapMs: fc.integer({ min: 0, max: 400 }),
      promptTokens: fc.integer({ min: 1, max: 300 }),
      answerTokens: fc.integer({ min: 1, max: 12 }),
      groupTokens: fc.integer({ min: 1, max: 5 }),
    }),
    { minLength: 1, maxLength: 8 },
  )
  .map((items): Arrival[] => {
    let at = 0;
    return items.map(({ gapMs, ...work }) => {
      at += gapMs;
      return { at, work };
    });
  });

test('event arithmetic agrees with the same rules in small ticks, for random arrivals', () => {
  fc.assert(
    fc.property(anyArrivals, fc.integer({ min: 1, max: 4 }), (arrivals, slots) => {
      const options = { ...card, slots };
      // Each stage of each request may be off by a tick or two, and delays the ones after it.
      const toleranceMs = 2 * 0.25 * (2 + 2 * arrivals.length);
      expect(worstGapMs(modelled(arrivals, options), ticked(arrivals, options, 0.25))).toBeLessThan(
        toleranceMs,
      );
    }),
    { numRuns: 40 },
  );
});

test('that comparison sees a wrong rate: without the share of each request it disagrees', () => {
  const work = { promptTokens: 100, answerTokens: 12 };
  const arrivals = [0, 10, 20].map((at) => ({ at, work }));
  const wrong = { ...card, stepPerRequestMs: 4.5 };
  const tolerance = 2 * 0.25 * (2 + 2 * arrivals.length);
  const gap = worstGapMs(modelled(arrivals, { ...card, slots: 3 }), ticked(arrivals, wrong, 0.25));
  expect(gap).toBeGreaterThan(tolerance);
});

test('it never runs more than its slots and loses nobody, whoever comes and goes', () => {
  const steps = fc.array(
    fc.record({ leave: fc.boolean(), waitMs: fc.integer({ min: 0, max: 300 }), pick: fc.nat(9) }),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 3 }), (actions, slots) => {
      const gpu = new Gpu({ ...card, slots });
      const present = new Set<number>();
      const note = (events: GpuEvent[]) => {
        for (const { type, id } of events) if (type === 'ended') present.delete(id);
        expect(gpu.running).toBeLessThanOrEqual(slots);
        expect(gpu.running + gpu.queued).toBe(present.size);
        if (gpu.queued > 0) expect(gpu.running).toBe(slots);
      };
      let now = 0;
      actions.forEach(({ leave, waitMs, pick }, id) => {
        now += waitMs;
        const gone = [...present][pick];
        if (leave && gone !== undefined) {
          const events = gpu.leave(gone, now);
          present.delete(gone);
          note(events);
        } else {
          present.add(id);
          note(gpu.arrive(id, { promptTokens: 20, answerTokens: 1 + (id % 5) }, now));
        }
      });
      for (let at = gpu.nextEventAt(); at !== undefined; at = gpu.nextEventAt()) {
        note(gpu.advance(at));
      }
      expect(present.size).toBe(0);
    }),
  );
});
