/**
 * Runs random histories against the model. A failure prints the shrunken history and its seed. To
 * replay it: SLUICE_TEST_SEED=<seed>/<path>, as printed, and the same test (`vitest run <file> -t
 * <name>`); with the seed alone all histories of that seed are run. SLUICE_TEST_RUNS sets the number
 * of histories.
 */

import fc from 'fast-check';
import { testRedis } from '../../support/redis.ts';
import { History } from './history.ts';
import { type Lane, openLanes } from './lane.ts';
import { type Op, opOf, type Theme } from './ops.ts';

export interface RunOptions {
  readonly theme: Theme;
  /** Histories. */
  readonly runs: number;
  readonly steps?: { readonly min: number; readonly max: number };
  /** The Lua, changed. */
  readonly patch?: (step: string, source: string) => string;
  /** Whether a failure is made small first. */
  readonly shrinks?: boolean;
  /** Where histories begin; the environment's wins. */
  readonly seed?: number;
}

/** Histories at a time: while one waits for Redis another goes on. */
const lanesAtOnce = 4;

/** Throws what the first history found that failed. Returns the number of steps. */
export async function runHistories(options: RunOptions): Promise<number> {
  const { theme, patch, shrinks = true, steps: { min, max } = { min: 20, max: 40 } } = options;
  const [given, path] = (process.env.SLUICE_TEST_SEED ?? '').split('/');
  const seed = given ? Number(given) : (options.seed ?? Math.floor(Math.random() * 2 ** 31));
  const count = given ? 1 : lanesAtOnce;
  const numRuns = Math.ceil(Number(process.env.SLUICE_TEST_RUNS ?? options.runs) / count);
  const steps = fc.array(opOf(theme), { minLength: min, maxLength: max, size: 'max' });
  let isOver = false;
  let done = 0;

  const runIn = async (lane: Lane, index: number) => {
    const property = fc.asyncProperty(steps, async (ops) => {
      if (isOver) return;
      const history = new History(lane, theme.quotas);
      await history.start();
      for (const op of ops) await history.run(op);
      await history.finish();
      done += ops.length;
    });
    const from = { seed: seed + index, ...(path && { path }) };
    const details = await fc.check(property, { numRuns, endOnFailure: !shrinks, ...from });
    if (!details.failed || isOver) return;
    isOver = true;
    const replay = `SLUICE_TEST_SEED=${from.seed}/${details.counterexamplePath}`;
    const cause = details.errorInstance;
    const lines = [replay, ...printed(details.counterexample?.[0] ?? []), String(cause)];
    throw new Error(lines.join('\n'), { cause });
  };

  const server = await testRedis();
  try {
    const lanes = await openLanes(server, count, patch);
    const results = await Promise.allSettled(lanes.map(runIn));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
    return done;
  } finally {
    await server.stop();
  }
}

function printed(ops: readonly Op[]): string[] {
  return ops.flatMap((op) => (op.do === 'nothing' ? [] : [JSON.stringify(op)]));
}
