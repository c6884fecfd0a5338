/** Runs parts one after the other, each on a Redis of its own, and gathers what they measured. */

import { type Environment, environment } from './environment.ts';
import { contended } from './parts/contended.ts';
import { gateways } from './parts/gateways.ts';
import { handover } from './parts/handover.ts';
import { idle } from './parts/idle.ts';
import { memory } from './parts/memory.ts';
import { overhead } from './parts/overhead.ts';
import { pairs } from './parts/pairs.ts';
import { streams } from './parts/streams.ts';
import { persistence, startBenchRedis } from './support/redis.ts';
import type { Measure, Part } from './types.ts';

export const parts: readonly Part[] = [
  pairs,
  contended,
  handover,
  overhead,
  streams,
  idle,
  memory,
  gateways,
];

export interface RunOptions {
  readonly parts: readonly Part[];
  readonly quick: boolean;
  readonly rounds: number;
}

/** What a results file holds. */
export interface Results extends Environment {
  readonly date: string;
  readonly quick: boolean;
  readonly rounds: number;
  readonly redis: { readonly server: string; readonly persistence: string };
  readonly minutes: number;
  readonly parts: readonly {
    readonly name: string;
    readonly about: string;
    readonly measures: readonly Measure[];
  }[];
}

export async function run(options: RunOptions): Promise<Results> {
  const startedAt = performance.now();
  const date = new Date().toISOString().slice(0, 10);
  const measured: Results['parts'][number][] = [];
  let server = '';
  for (const part of options.parts) {
    const say = (text: string) => process.stderr.write(`${part.name}: ${text}\n`);
    const redis = await startBenchRedis();
    server = `${redis.kind} ${redis.version}`;
    say(`${part.about} (${server}, ${persistence})`);
    try {
      const measures = await part.run({ ...options, redis, progress: (text) => say(`  ${text}`) });
      measured.push({ name: part.name, about: part.about, measures });
    } finally {
      await redis.stop();
    }
  }
  return {
    date,
    ...environment(),
    redis: { server, persistence },
    quick: options.quick,
    rounds: options.rounds,
    minutes: Math.round((performance.now() - startedAt) / 6_000) / 10,
    parts: measured,
  };
}
