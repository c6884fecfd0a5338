/** The replicas of one pool by brute force: who may be sent a prompt, and how many more. */

interface ModelReplica {
  readonly id: string;
  maxInflight: number;
  source: 'config' | 'api';
  state: 'ready' | 'draining' | 'leaving';
  health: 'up' | 'down' | 'trial';
  downUntil: number;
  openings: number;
  openedAt: number;
  /** When it joined. */
  sinceMs: number;
  /** Prompts in a row that broke off there. */
  strikes: number;
  /** Whose end says whether it serves. */
  trial: string | undefined;
  expiresAt: number;
  drainUntil: number;
}

const never = Number.POSITIVE_INFINITY;
const longestRestMs = 60_000;

/** How a replica is put over HTTP. */
export interface Put {
  readonly maxInflight: number;
  readonly state?: 'ready' | 'draining';
  readonly ttlMs?: number;
}

export class ModelPool {
  readonly #replicas = new Map<string, ModelReplica>();
  /** Ids of the requests that run at a replica. */
  readonly #runningAt: (id: string) => readonly string[];

  constructor(runningAt: (id: string) => readonly string[]) {
    this.#runningAt = runningAt;
  }

  /** What a gateway's file names. Says whether any of it is new. */
  set(takes: Readonly<Record<string, number>>, nowMs: number): boolean {
    let isNew = false;
    for (const [id, maxInflight] of Object.entries(takes)) {
      const before = this.#replicas.get(id);
      if (before?.source === 'api' && before.state !== 'leaving') continue;
      const facts = factsOf(before);
      isNew = factsOf(this.#join(id, maxInflight, 'config', never, nowMs)) !== facts || isNew;
    }
    for (const { id, source, state } of [...this.#replicas.values()]) {
      if (source !== 'config' || state === 'leaving' || id in takes) continue;
      this.remove(id);
      isNew = true;
    }
    return isNew;
  }

  /** Says whether it is more than a sign of life. */
  put(id: string, { maxInflight, state, ttlMs = never }: Put, nowMs: number): boolean {
    const facts = factsOf(this.#replicas.get(id));
    const replica = this.#join(id, maxInflight, 'api', nowMs + ttlMs, nowMs);
    if (state === 'draining') replica.state = 'draining';
    if (state === 'ready') Object.assign(replica, { state, drainUntil: never });
    return factsOf(replica) !== facts;
  }

  /** Whether there is one. */
  drain(id: string, untilMs: number): boolean {
    const replica = this.#known(id);
    if (replica) Object.assign(replica, { state: 'draining', drainUntil: untilMs });
    return replica !== undefined;
  }

  remove(id: string): boolean {
    const replica = this.#known(id);
    if (replica) Object.assign(replica, { state: 'leaving', expiresAt: never });
    this.#forgetEmpty();
    return replica !== undefined;
  }

  has(id: string): boolean {
    return this.#replicas.has(id);
  }

  /** Prompts that run at its replicas or could go there now. */
  units(): number {
    let units = 0;
    for (const replica of this.#replicas.values()) {
      units += this.#runningAt(replica.id).length + this.#room(replica);
    }
    return units;
  }

  /**
   * The largest free share. Those that failed it before only when all that serve have: 'later' while
   * another one is full.
   */
  choose(failed: readonly string[], hasWaited: boolean): string | undefined | 'later' {
    const free = [...this.#replicas.values()].filter((replica) => this.#room(replica) > 0);
    const scored = free.map(({ id, maxInflight }) => {
      return { id, hasFailed: failed.includes(id), load: this.#runningAt(id).length / maxInflight };
    });
    const [best] = scored.toSorted(
      (a, b) =>
        Number(a.hasFailed) - Number(b.hasFailed) || a.load - b.load || (a.id < b.id ? -1 : 1),
    );
    const serves = ({ id, state, health }: ModelReplica) =>
      state === 'ready' && health !== 'down' && !failed.includes(id);
    const hasOther = [...this.#replicas.values()].some(serves);
    return best?.hasFailed && hasOther && !hasWaited ? 'later' : best?.id;
  }

  enter(id: string, request: string): void {
    const replica = this.#replicas.get(id);
    if (replica?.health === 'trial') replica.trial = request;
  }

  /** After a request is gone from it. */
  left(id: string, request: string): void {
    const replica = this.#replicas.get(id);
    if (replica?.trial === request) replica.trial = undefined;
    this.#forgetEmpty();
  }

  /** By a prompt that began then. */
  served(id: string, beganAtMs: number): void {
    const replica = this.#replicas.get(id);
    if (!replica || replica.health === 'down' || beganAtMs < replica.sinceMs) return;
    Object.assign(replica, { health: 'up', openings: 0, strikes: 0, trial: undefined });
  }

  failed(
    id: string,
    beganAtMs: number,
    rest: { ms: number; isSure: boolean },
    nowMs: number,
  ): void {
    const replica = this.#replicas.get(id);
    const earliestMs = Math.max(replica?.openedAt ?? 0, replica?.sinceMs ?? 0);
    if (!replica || replica.health === 'down' || beganAtMs < earliestMs) return;
    replica.strikes += 1;
    if (replica.health === 'up' && !rest.isSure && replica.strikes < 2) return;
    const { ms: restMs } = rest;
    const longest = Math.max(restMs, longestRestMs);
    const downUntil = nowMs + Math.min(longest, restMs * 2 ** replica.openings);
    const openings = replica.openings + 1;
    const opened = { health: 'down', openings, openedAt: nowMs, trial: undefined, downUntil };
    Object.assign(replica, { ...opened, strikes: 0 });
  }

  /** What comes first for each replica. */
  timers(): { readonly id: string; readonly atMs: number }[] {
    return [...this.#replicas.values()].flatMap(
      ({ id, health, downUntil, expiresAt, drainUntil }) => {
        const atMs = Math.min(health === 'down' ? downUntil : never, expiresAt, drainUntil);
        return atMs < never ? [{ id, atMs }] : [];
      },
    );
  }

  /** Its time has come: whether what runs there is to be moved, and whether it may have room now. */
  onTime(id: string, nowMs: number, graceUntilMs: number): { moves: boolean; opens: boolean } {
    const replica = this.#replicas.get(id);
    if (!replica) return { moves: false, opens: false };
    if (replica.expiresAt <= nowMs && nowMs < graceUntilMs) replica.expiresAt = graceUntilMs;
    const moves = replica.drainUntil <= nowMs;
    if (moves) replica.drainUntil = never;
    const isGone = replica.expiresAt <= nowMs;
    const isRested = !isGone && replica.health === 'down' && replica.downUntil <= nowMs;
    if (isGone) this.remove(id);
    if (isRested) replica.health = 'trial';
    return { moves, opens: isGone || isRested };
  }

  #join(
    id: string,
    maxInflight: number,
    source: 'config' | 'api',
    expiresAt: number,
    sinceMs: number,
  ) {
    const before = this.#known(id);
    const fresh = {
      state: 'ready' as const,
      health: 'up' as const,
      downUntil: 0,
      openings: 0,
      openedAt: 0,
      sinceMs,
      strikes: 0,
      trial: undefined,
      drainUntil: never,
    };
    const replica: ModelReplica = { ...fresh, ...before, id, maxInflight, source, expiresAt };
    this.#replicas.set(id, replica);
    return replica;
  }

  #known(id: string): ModelReplica | undefined {
    const replica = this.#replicas.get(id);
    return replica?.state === 'leaving' ? undefined : replica;
  }

  #room({ id, state, health, trial, maxInflight }: ModelReplica): number {
    if (state !== 'ready' || health === 'down') return 0;
    const free = Math.max(0, maxInflight - this.#runningAt(id).length);
    if (health === 'trial') return trial === undefined ? Math.min(1, free) : 0;
    return free;
  }

  #forgetEmpty(): void {
    for (const { id, state } of [...this.#replicas.values()]) {
      if (state === 'leaving' && this.#runningAt(id).length === 0) this.#replicas.delete(id);
    }
  }
}

/** What others can notice of it. */
function factsOf(replica: ModelReplica | undefined): string {
  return `${replica?.maxInflight} ${replica?.state} ${replica?.health}`;
}
