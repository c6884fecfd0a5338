/** A replica that takes a fixed time for every prompt, whatever else it runs, and remembers each. */

import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { serve } from '../support/children.ts';
import type { Span } from './gateway.ts';

let simulator: Simulator | undefined;

serve({
  /** One token takes 1 ms, and reading the prompt no time. */
  async start({ slots, workMs }: { slots: number; workMs: number }) {
    simulator = await startSimulator({
      slots,
      stepMs: 1,
      stepPerRequestMs: 0,
      prefillTokensPerSecond: 1e9,
      answerTokens: { min: workMs, max: workMs },
      logSize: 100_000,
    });
    return simulator.url;
  },

  /** When each prompt arrived and was answered, ms since 1970; forgets them. */
  spans(): Span[] {
    const { log = [], failed, aborted } = simulator?.state() ?? {};
    if (failed || aborted) throw new Error(`the replica failed ${failed}, aborted ${aborted}`);
    simulator?.reset();
    return log.map(({ started_at, ended_at }) => ({
      from: started_at,
      to: ended_at ?? started_at,
    }));
  },
});
