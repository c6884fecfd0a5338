/**
 * 200 clients with one stream each, always, through two gateways and two workers. Every client
 * holds all that it got against what the replica said to its prompt, token by token. How long the
 * first token is on its way is told by the replica and the client, on one clock; beside it the same
 * of one stream alone.
 */

import type { Heard, StreamsOptions } from '../children/client.ts';
import { percentile } from '../stats.ts';
import { Child } from '../support/children.ts';
import { startPromptCluster } from '../support/prompt-cluster.ts';
import { commandCalls } from '../support/redis.ts';
import type { Measure, Part } from '../types.ts';

const atOnce = 200;
const tokenMs = 25;
/** So few that many streams can be asked for one after the other: their first token counts. */
const tokensAlone = 4;

type Streams = Omit<StreamsOptions, 'urls' | 'name'>;

interface Told extends Heard {
  /** From the replica's first token to the client's; NaN when there was none. */
  readonly wayMs: number;
}

/** What one round came to. */
interface Round {
  readonly wrong: number;
  readonly perSecond: number;
  readonly writes: number;
  readonly half: number;
  readonly late: number;
  readonly halfAlone: number;
}

export const streams: Part = {
  name: 'streams',
  about: `${atOnce} streams at once through 2 gateways and 2 workers`,
  async run({ redis, quick, rounds, progress }) {
    await using replica = new Child('upstream');
    const url = await replica.ask<string>('start', { tokenMs });
    await using first = new Child('client');
    await using second = new Child('client');
    await using cluster = await startPromptCluster({
      redisUrl: redis.url,
      gateways: 2,
      workers: 2,
      replicas: { protocol: 'openai', urls: [url] },
      slots: atOnce,
    });
    // One process of clients alone would be what limits.
    const clients = [first, second];
    const tokens = quick ? 40 : 200;
    const each = atOnce / clients.length;
    const crowd: Streams = { tokens, turns: 3, clients: each, spreadMs: tokens * tokenMs };
    const alone: Streams = { tokens: tokensAlone, turns: quick ? 10 : 60, clients: 1, spreadMs: 0 };

    const listen = async (name: string, children: readonly Child[], options: Streams) => {
      const heard = await Promise.all(
        children.map((child, index) => {
          const asked = { ...options, urls: cluster.urls, name: `${name}-${index}` };
          return child.ask<Heard[]>('streams', asked);
        }),
      );
      return told(heard.flat(), await replica.ask('begun'));
    };
    await listen('warm', clients, { ...crowd, tokens: 20, spreadMs: 500 });
    const measured: Round[] = [];
    for (let round = 0; round < rounds; round++) {
      const single = await listen(`alone-${round}`, [first], alone);
      await redis.admin.config('RESETSTAT');
      const all = await listen(`crowd-${round}`, clients, crowd);
      const appended = await commandCalls(redis.admin, 'xadd');
      // While the first ones run, others have yet to begin.
      const full = all.filter(({ turn }) => turn > 0);
      const figures = {
        wrong: [...single, ...all].filter(({ isRight }) => !isRight).length,
        perSecond: (atOnce * tokens) / (meanMs(full) / 1_000),
        writes: appended / (all.length * tokens),
        half: wayMs(full, 0.5),
        late: wayMs(full, 0.99),
        halfAlone: wayMs(single, 0.5),
      };
      measured.push(figures);
      const { wrong, half, halfAlone, perSecond } = figures;
      progress(
        `round ${round + 1}: ${wrong} streams wrong, first token p50 ${half.toFixed(2)} ms ` +
          `(alone ${halfAlone.toFixed(2)}), ${perSecond.toFixed(0)} tokens/s`,
      );
    }
    return report(measured);
  },
};

/** What clients heard, beside when the replica began to say it. */
function told(heard: readonly Heard[], begun: Readonly<Record<string, number>>): Told[] {
  return heard.map((stream) => {
    const { prompt, firstAt = Number.NaN } = stream;
    return { ...stream, wayMs: firstAt - (begun[prompt] ?? Number.NaN) };
  });
}

function wayMs(streams: readonly Told[], p: number): number {
  // One that never began is counted as wrong.
  const begun = streams.map((stream) => stream.wayMs).filter((ms) => !Number.isNaN(ms));
  return percentile(begun, p);
}

/** What a stream took its client. In a closed loop every client is always in one. */
function meanMs(streams: readonly Heard[]): number {
  const sum = streams.reduce((total, { askedAt, endedAt }) => total + endedAt - askedAt, 0);
  return sum / streams.length;
}

function report(rounds: readonly Round[]): Measure[] {
  const line = (name: string, unit: string, figure: keyof Round): Measure => {
    const values = rounds.map((round) => round[figure]);
    return { name, unit, values, summary: 'median' };
  };
  const way = 'first token, from the replica to the client';
  return [
    {
      ...line('streams that are not what the replica said', '', 'wrong'),
      summary: 'highest',
      target: { atMost: 0 },
    },
    { ...line(`${way}, p50`, 'ms', 'half'), target: { atMost: 10 } },
    line(`${way}, p99`, 'ms', 'late'),
    line(`${way}, one stream alone, p50`, 'ms', 'halfAlone'),
    line('delivered', 'tokens/s', 'perSecond'),
    line('Redis writes (XADD) for each token', '', 'writes'),
  ];
}
