/**
 * A million steps against the reference model, `npm run test:long`: a share of them for each theme, in
 * longer histories than `npm test` runs. Prints the seed of each round; a failure says how to replay
 * it, with `-- -t <theme>`. SLUICE_TEST_STEPS sets the number of steps.
 */

import { expect, test } from 'vitest';
import { runHistories } from '../admission/model/run.ts';
import { themes } from '../admission/model/themes.ts';

const stepsInAll = Number(process.env.SLUICE_TEST_STEPS ?? 1_000_000);
const replays = process.env.SLUICE_TEST_SEED !== undefined;
const all = Object.entries(themes);

for (const [name, theme] of all) {
  const wanted = Math.ceil(stepsInAll / all.length);
  test(name, async () => {
    let done = 0;
    while (done < wanted) {
      const seed = Math.floor(Math.random() * 2 ** 31);
      done += await runHistories({
        theme,
        runs: 200,
        steps: { min: 20, max: 120 },
        seed,
        shrinks: replays,
      });
      process.stderr.write(`${name}: ${done} of ${wanted} steps, seed ${seed}\n`);
      if (replays) return;
    }
    expect(done).toBeGreaterThanOrEqual(wanted);
  }, 0);
}
