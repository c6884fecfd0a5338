/** Closed loops: a fixed number of lanes, each of which begins its next turn when one has ended. */

export interface LoopOptions {
  readonly lanes: number;
  /** Not counted, ms. */
  readonly warmMs: number;
  readonly measureMs: number;
  /** One turn of a lane, counted from 0. */
  readonly turn: (lane: number) => Promise<void>;
}

export interface Turns {
  readonly perSecond: number;
  /** What each of them took, ms. */
  readonly ms: readonly number[];
}

/** The turns after the warm-up. Resolves when every lane has ended its last turn. */
export async function measureTurns(options: LoopOptions): Promise<Turns> {
  const { lanes, warmMs, measureMs, turn } = options;
  const startedAt = performance.now();
  const fromAt = startedAt + warmMs;
  const untilAt = fromAt + measureMs;
  const ms: number[] = [];
  let lastAt = fromAt;
  const run = async (lane: number) => {
    for (let begunAt = startedAt; ; ) {
      await turn(lane);
      const now = performance.now();
      if (now >= untilAt) return;
      if (now >= fromAt) {
        ms.push(now - begunAt);
        lastAt = now;
      }
      begunAt = now;
    }
  };
  await Promise.all(Array.from({ length: lanes }, (_, lane) => run(lane)));
  if (ms.length === 0) throw new Error(`not one turn in ${measureMs} ms`);
  return { perSecond: ms.length / ((lastAt - fromAt) / 1_000), ms };
}

/** Turns per second after the warm-up. */
export async function turnsPerSecond(options: LoopOptions): Promise<number> {
  return (await measureTurns(options)).perSecond;
}

/** Runs `work` for 0 to count - 1, so many at a time. */
export async function inLanes(
  count: number,
  lanes: number,
  work: (index: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const run = async () => {
    while (next < count) {
      const index = next;
      next += 1;
      await work(index);
    }
  };
  await Promise.all(Array.from({ length: Math.min(lanes, count) }, run));
}
