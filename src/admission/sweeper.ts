import type { Admission } from './admission.ts';
import type { Member, StepReply, SweepResult } from './types.ts';

export interface SweeperOptions {
  readonly admission: Admission;
  /** Who sweeps; its sign of life goes with each slow sweep. */
  readonly member: Member;
  /** Period of the slow sweep, ms. */
  readonly everyMs: number;
  /** A step failed: Redis is away, or a bug. Called once for each failure. */
  readonly onError: (error: unknown) => void;
  /** The cluster did not know this member: its requests may have been ended as orphans. */
  readonly onJoined?: (() => void) | undefined;
  /** After each sweep that came through. */
  readonly onSwept?: ((result: SweepResult) => void) | undefined;
}

/**
 * Runs `sweep` exactly when something is due, by the times that replies carry, and slowly besides:
 * that is the sign of life and covers for a process that died with its timer.
 */
export class Sweeper {
  readonly #options: SweeperOptions;
  #slow: NodeJS.Timeout | undefined;
  #exact: NodeJS.Timeout | undefined;
  #exactAtMs = Number.POSITIVE_INFINITY;
  #member: Member;
  #running = false;

  constructor(options: SweeperOptions) {
    this.#options = options;
    this.#member = options.member;
    options.admission.onReply((reply) => this.#wakeAt(reply));
  }

  /** Joins the cluster. Throws what the first sweep throws. */
  async start(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    const result = await this.#options.admission.sweep(this.#member);
    this.#options.onSwept?.(result);
    this.#slow = setInterval(() => this.#sweep(), this.#options.everyMs);
  }

  /** From now on the member says this of itself, at once. */
  async announce(member: Member): Promise<void> {
    this.#member = member;
    if (!this.#running) return;
    const result = await this.#options.admission.sweep(member);
    this.#options.onSwept?.(result);
  }

  /** Leaves the cluster: what it owned is ended, its capacity is gone. */
  async stop(): Promise<void> {
    if (!this.#running) return;
    this.#running = false;
    clearInterval(this.#slow);
    clearTimeout(this.#exact);
    await this.#options.admission.sweep(this.#member, true).catch(this.#options.onError);
  }

  #wakeAt(reply: StepReply): void {
    if (!this.#running || reply.due === undefined || reply.due >= this.#exactAtMs) return;
    clearTimeout(this.#exact);
    this.#exactAtMs = reply.due;
    // One ms late: a timer that fires early would find nothing due and ask again.
    const delayMs = Math.max(0, reply.due - reply.now) + 1;
    this.#exact = setTimeout(() => {
      this.#exactAtMs = Number.POSITIVE_INFINITY;
      this.#sweep();
    }, delayMs);
  }

  #sweep(): void {
    if (!this.#running) return;
    this.#options.admission.sweep(this.#member).then(
      (result) => {
        if (result.joined) this.#options.onJoined?.();
        if (this.#running) this.#options.onSwept?.(result);
      },
      (error: unknown) => this.#options.onError(error),
    );
  }
}
