/**
 * A domain in which so many requests wait and 64 hold slots, and the closed loop that keeps it so:
 * one ends, one of the same user is submitted.
 */

import { Engine, type Limits, shortRecordsMs } from './engine.ts';
import { inLanes, turnsPerSecond } from './loop.ts';

export const slots = 64;
/** Pairs in flight: enough that calls share round trips, and fewer than slots. */
const lanes = 32;
/** Without an admission for so long, the engine has lost one, ms. */
const stallMs = 20_000;

/** What the requests need. */
export interface Shape {
  readonly name: string;
  readonly limits: Limits;
  /** Limiters of a user's requests; users are counted from 0. */
  limitersOf(user: number): string[];
  /** All users but the first hold a unit of their own cap elsewhere, with other requests. */
  readonly othersHoldOne?: boolean;
}

/** Slots that no user reaches. */
const roomy = 2 * slots;

export const shapes: readonly Shape[] = [
  {
    name: 'a global and a per-user limit',
    limits: { all: slots, 'all.user': roomy },
    limitersOf: (user) => [`all.user=u${user}`, 'all'],
  },
  {
    // The caps are of two policies, so that one user alone can fill all slots.
    name: 'every user but one at its cap',
    limits: { all: slots, 'one.user': roomy, 'capped.user': 1 },
    limitersOf: (user) => [user === 0 ? 'one.user=u0' : `capped.user=u${user}`, 'all'],
    othersHoldOne: true,
  },
  {
    name: 'two shared limits, all need both',
    limits: { all: slots, pool: slots },
    limitersOf: () => ['pool', 'all'],
  },
  {
    // Whichever of the two has a free unit, most of those that wait for it need the other one too.
    name: 'two shared limits, one user in five needs one of them',
    limits: { all: slots, pool: slots },
    limitersOf: (user) => {
      if (user % 10 === 1) return ['all'];
      return user % 10 === 2 ? ['pool'] : ['pool', 'all'];
    },
  },
];

export interface Crowd {
  /** A multiple of `users`. */
  readonly waiting: number;
  readonly users: number;
}

let domains = 0;

export class WaitingRoom {
  readonly engine: Engine;
  readonly #shape: Shape;
  readonly #crowd: Crowd;
  /** Users of the requests that have not ended. */
  readonly #users = new Map<string, number>();
  readonly #seen = new Set<string>();
  readonly #ready: string[] = [];
  readonly #takers: ((id: string) => void)[] = [];

  private constructor(engine: Engine, shape: Shape, crowd: Crowd) {
    this.engine = engine;
    this.#shape = shape;
    this.#crowd = crowd;
    engine.onAdmitted((id) => this.#admitted(id));
  }

  static async open(
    url: string,
    shape: Shape,
    crowd: Crowd,
    recordsMs = shortRecordsMs,
  ): Promise<WaitingRoom> {
    domains += 1;
    const engine = await Engine.open({
      url,
      domain: `room${domains}`,
      id: 'g1',
      recordsMs,
      // While others are measured nothing of this domain runs.
      sweepMs: 3_600_000,
    });
    await engine.limit(shape.limits);
    return new WaitingRoom(engine, shape, crowd);
  }

  /** Takes the caps, the slots, and then the places in the queue. */
  async fill(): Promise<void> {
    const { users, waiting } = this.#crowd;
    if (this.#shape.othersHoldOne) {
      await inLanes(users - 1, lanes, (index) => {
        const [cap = ''] = this.#shape.limitersOf(index + 1);
        return this.engine.submit({ user: `u${index + 1}`, limiters: [cap] });
      });
    }
    // Whoever can run takes the slots, the others only wait.
    const runners = this.#shape.othersHoldOne ? 1 : users;
    for (let index = 0; this.#ready.length < slots; index++) {
      if (index > 8 * slots) throw new Error(`only ${this.#ready.length} of ${slots} slots taken`);
      await this.#submit(index % runners);
    }
    const extra = waiting - (await this.engine.waiting());
    await inLanes(extra, lanes, (index) => this.#submit(index % users));
  }

  /** Ends one and submits one, as often as it goes. */
  async pairsPerSecond(warmMs: number, measureMs: number): Promise<number> {
    const rate = await turnsPerSecond({ lanes, warmMs, measureMs, turn: () => this.turn() });
    const waiting = await this.engine.waiting();
    if (Math.abs(waiting - this.#crowd.waiting) > lanes) {
      throw new Error(`${waiting} wait, not ${this.#crowd.waiting}: the loop is not closed`);
    }
    return rate;
  }

  /** One request ends, and its user submits another; in one turn of the event loop. */
  async turn(): Promise<void> {
    const id = await this.#take();
    const user = this.#users.get(id) ?? 0;
    await Promise.all([this.engine.release(id), this.#submit(user)]);
    this.#users.delete(id);
    this.#seen.delete(id);
  }

  /** More of one user. */
  add(user: number, count: number): Promise<void> {
    return inLanes(count, lanes, () => this.#submit(user));
  }

  settle(): Promise<void> {
    return this.engine.settle();
  }

  close(): Promise<void> {
    return this.engine.close();
  }

  async #submit(user: number): Promise<void> {
    const id = this.engine.newId();
    this.#users.set(id, user);
    const limiters = this.#shape.limitersOf(user);
    const state = await this.engine.submit({ id, user: `u${user}`, limiters });
    if (state === 'admitted') this.#admitted(id);
  }

  /** Heard twice, by the reply and by the event; told on once. */
  #admitted(id: string): void {
    if (!this.#users.has(id) || this.#seen.has(id)) return;
    this.#seen.add(id);
    const taker = this.#takers.shift();
    if (taker) taker(id);
    else this.#ready.push(id);
  }

  async #take(): Promise<string> {
    return this.#ready.shift() ?? (await this.#next());
  }

  #next(): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const timer = setTimeout(() => reject(new Error(`nobody admitted in ${stallMs} ms`)), stallMs);
    this.#takers.push((id) => {
      clearTimeout(timer);
      resolve(id);
    });
    return promise;
  }
}
