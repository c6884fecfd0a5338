/** One gateway process of the benchmark: the engine, told over IPC what to do with it. */

import { serve, sharedNow } from '../support/children.ts';
import { Engine, type EngineOptions, type Limits } from '../support/engine.ts';
import { inLanes, turnsPerSecond } from '../support/loop.ts';

/** When one flow was resumed and when it ended its work, on the shared clock, ms. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

let engine: Engine | undefined;

function opened(): Engine {
  if (engine === undefined) throw new Error('not opened');
  return engine;
}

const bareChannel = (id: string) => `bench:bare:${id}`;

/** What is awaited for the sample that is being taken. */
let resumed: Promise<number> | undefined;
let heard: PromiseWithResolvers<number> | undefined;
let held: string | undefined;

serve({
  async open({ limits, ...options }: EngineOptions & { limits?: Limits }) {
    engine = await Engine.open(options);
    if (limits === undefined) await engine.read();
    else await engine.limit(limits);
    await engine.events.subscribe(bareChannel(options.id));
    engine.events.on('message', (channel: string) => {
      if (channel === bareChannel(options.id)) heard?.resolve(sharedNow());
    });
  },

  async close() {
    await opened().close();
    engine = undefined;
  },

  /** Pairs a second of this process. */
  pairs(options: { lanes: number; warmMs: number; measureMs: number }) {
    const { lanes, warmMs, measureMs } = options;
    const turn = async (lane: number) => {
      const user = `${opened().id}-${lane}`;
      const limiters = [`all.user=${user}`, 'all'];
      await opened().release(await opened().acquire({ user, limiters }));
    };
    return turnsPerSecond({ lanes, warmMs, measureMs, turn });
  },

  /** Takes the slot. */
  async hold() {
    held = await opened().acquire({ user: 'holder', limiters: ['all'] });
  },

  /** Waits for the slot: answers once the request is queued. */
  async wait() {
    const id = opened().newId();
    resumed = opened()
      .admitted(id)
      .then(() => sharedNow());
    held = id;
    const state = await opened().submit({ id, user: 'waiter', limiters: ['all'] });
    if (state !== 'waiting') throw new Error(`it is ${state}: nobody holds the slot`);
  },

  /** When the event came that resumed it. */
  resumedAt: () => resumed,

  /** Gives the slot up; says when it began to. */
  async release() {
    const at = sharedNow();
    await opened().release(held ?? '');
    return at;
  },

  listen() {
    heard = Promise.withResolvers<number>();
  },

  heardAt: () => heard?.promise,

  /** Says when it published, of as many bytes as an event has. */
  async publish({ to }: { to: string }) {
    const event = JSON.stringify({ id: opened().newId(), state: 'admitted' });
    const at = sharedNow();
    await opened().commands.publish(bareChannel(to), event);
    return at;
  },

  /** So many flows, some at a time: each waits for its slot, works, and gives it up. */
  async flows(options: { count: number; clients: number; workMs: number }): Promise<Span[]> {
    const { count, clients, workMs } = options;
    const spans: Span[] = [];
    await inLanes(count, clients, async (index) => {
      const id = await opened().acquire({ user: `u${index % 50}`, limiters: ['all'] });
      const from = sharedNow();
      await new Promise((resolve) => setTimeout(resolve, workMs));
      const to = sharedNow();
      await opened().release(id);
      spans.push({ from, to });
    });
    return spans;
  },
});
