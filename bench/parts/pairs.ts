/**
 * Submit and finish, as often as one process can: 50 users with one request each in flight, in a
 * closed loop, without work between. Beside it, on the same server, what else there is for limits
 * over Redis, and two empty script calls, which is as fast as two round trips can be.
 */

import { ratios } from '../stats.ts';
import { Engine, shortRecordsMs } from '../support/engine.ts';
import { turnsPerSecond } from '../support/loop.ts';
import { type BottleneckLimiter, loadPeers, type Peers } from '../support/peers.ts';
import type { Context, Measure, Part } from '../types.ts';

const lanes = 50;
const userCap = 4;
/** After this a Group looks for limiters to drop, on a connection that is closed by then, ms. */
const groupMs = 86_400_000;
/** The first never makes anybody wait; with the second one in five waits. */
const caps = { uncontended: 64, 'lightly contended': 40 };

/** Something that can be asked for a slot. `close` ends what it holds. */
interface Contender {
  turn(lane: number): Promise<void>;
  close(): Promise<unknown>;
}
type Start = (url: string, cap: number) => Promise<Contender>;

export const pairs: Part = {
  name: 'pairs',
  about: 'submit + finish pairs a second, one process, 50 in flight',
  async run(context) {
    const peers = await loadPeers(context.progress);
    const measured = new Map<string, number[]>();
    for (let round = 0; round < context.rounds; round++) {
      for (const [load, cap] of Object.entries(caps)) {
        for (const [name, start] of contenders(peers, load)) {
          const rate = await measure(context, start, cap);
          context.progress(`round ${round + 1}, ${load}, ${name}: ${rate.toFixed(0)} pairs/s`);
          const key = `${load}: ${name}`;
          measured.set(key, [...(measured.get(key) ?? []), rate]);
        }
      }
    }
    return Object.keys(caps).flatMap((load) => report(load, measured));
  },
};

function contenders(peers: Peers, load: string): [string, Start][] {
  const all: [string, Start][] = [
    ['Sluice', startSluice],
    ['Bottleneck, global cap', bottleneck(peers, false)],
    ['Bottleneck, both caps', bottleneck(peers, true)],
    ['redis-semaphore, global cap', semaphore(peers, false)],
    ['redis-semaphore, both caps', semaphore(peers, true)],
    ['two empty EVALSHA', emptyScripts(peers)],
  ];
  // An empty script limits nothing: it is the same under any load.
  return all.filter(([name]) => load === 'uncontended' || name !== 'two empty EVALSHA');
}

async function measure({ redis, quick }: Context, start: Start, cap: number): Promise<number> {
  await redis.admin.flushall();
  const contender = await start(redis.url, cap);
  try {
    return await turnsPerSecond({
      lanes,
      warmMs: quick ? 200 : 1_200,
      measureMs: quick ? 300 : 3_000,
      turn: (lane) => contender.turn(lane),
    });
  } finally {
    await contender.close();
  }
}

/** Ratios over the peer's easier task, the global cap alone, and over the same one. */
function report(load: string, measured: ReadonlyMap<string, number[]>): Measure[] {
  const figures = (name: string) => measured.get(`${load}: ${name}`) ?? [];
  const sluice = figures('Sluice');
  const rates = [...measured]
    .filter(([name]) => name.startsWith(`${load}: `))
    .map(([name, values]): Measure => ({ name, unit: 'pairs/s', values, summary: 'median' }));
  const over = (name: string, values: number[], atLeast: number): Measure => ({
    name: `${load}: Sluice over ${name}`,
    unit: 'x',
    values: ratios(sluice, values),
    summary: 'median',
    target: { atLeast },
  });
  return [
    ...rates,
    ...['global cap', 'both caps'].flatMap((caps) => [
      over(`Bottleneck, ${caps}`, figures(`Bottleneck, ${caps}`), 10),
      over(`redis-semaphore, ${caps}`, figures(`redis-semaphore, ${caps}`), 1),
    ]),
    over('two empty EVALSHA', measured.get('uncontended: two empty EVALSHA') ?? [], 0.5),
  ];
}

const startSluice: Start = async (url, cap) => {
  const engine = await Engine.open({ url, domain: 'pairs', id: 'g1', recordsMs: shortRecordsMs });
  await engine.limit({ all: cap, 'all.user': userCap });
  return {
    turn: async (lane) => {
      const user = `u${lane}`;
      await engine.release(await engine.acquire({ user, limiters: [`all.user=${user}`, 'all'] }));
    },
    close: () => engine.close(),
  };
};

/**
 * Its clustering mode. One limiter holds the global cap; for caps of users as well its README has a
 * Group, with a limiter for each user, chained to the global one.
 */
function bottleneck({ bottleneck: Bottleneck }: Peers, withUsers: boolean): Start {
  return async (url, cap) => {
    const { hostname: host, port } = new URL(url);
    const clientOptions = { host, port: Number(port) };
    const connection = new Bottleneck.IORedisConnection({ clientOptions });
    // What a listener throws would be an error to listen to: it is kept for the next turn.
    let failure: unknown;
    const onError = (error: unknown) => {
      failure ??= error;
    };
    connection.on('error', onError);
    const common = { connection, clearDatastore: true };
    const global = new Bottleneck({ ...common, id: 'all', maxConcurrent: cap });
    global.on('error', onError);
    await global.ready();
    let limiterOf = (_user: string): BottleneckLimiter => global;
    if (withUsers) {
      const options = { ...common, id: 'user', maxConcurrent: userCap, timeout: groupMs };
      const group = new Bottleneck.Group(options);
      group.on('error', onError);
      group.on('created', (limiter) => limiter.chain(global).on('error', onError));
      for (let lane = 0; lane < lanes; lane++) await group.key(`u${lane}`).ready();
      limiterOf = (user) => group.key(user);
    }
    return {
      turn: async (lane) => {
        if (failure !== undefined) throw failure;
        await limiterOf(`u${lane}`).schedule(async () => undefined);
      },
      close: () => connection.disconnect(false),
    };
  };
}

/** A Semaphore for each permit, with its default options, as in its README. */
function semaphore(
  { semaphore: { Semaphore }, redis: { Redis } }: Peers,
  withUsers: boolean,
): Start {
  return async (url, cap) => {
    const redis = new Redis(url);
    return {
      turn: async (lane) => {
        const user = withUsers ? new Semaphore(redis, `u${lane}`, userCap) : undefined;
        const global = new Semaphore(redis, 'all', cap);
        await user?.acquire();
        await global.acquire();
        await global.release();
        await user?.release();
      },
      close: async () => redis.disconnect(),
    };
  };
}

function emptyScripts({ redis: { Redis } }: Peers): Start {
  return async (url) => {
    const redis = new Redis(url);
    const sha = String(await redis.script('LOAD', 'return 1'));
    return {
      turn: async () => {
        await redis.evalsha(sha, 0);
        await redis.evalsha(sha, 0);
      },
      close: async () => redis.disconnect(),
    };
  };
}
