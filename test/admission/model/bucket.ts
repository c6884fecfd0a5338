/** A token bucket, said plainly: what it holds is a function of time since it was last written. */

import type { Bucket } from '../../../src/admission/index.ts';

export class ModelBucket {
  #rule: Bucket;
  /** Tokens times interval, so that filling adds whole numbers; valid from `#fromMs` on. */
  #level: number;
  #fromMs: number;
  /** The request that its next tokens are for, and when it can be paid. */
  hold: { readonly id: string; readonly untilMs: number } | undefined;

  constructor(rule: Bucket, nowMs: number) {
    this.#rule = rule;
    this.#level = fullLevel(rule);
    this.#fromMs = nowMs;
  }

  get capacity(): number {
    return this.#rule.capacity;
  }

  levelAt(nowMs: number): number {
    const { fillAmount, intervalMs, continuous } = this.#rule;
    const passedMs = Math.max(0, nowMs - this.#fromMs);
    const fillsMs = continuous ? passedMs : passedMs - (passedMs % intervalMs);
    return Math.min(fullLevel(this.#rule), this.#level + fillsMs * fillAmount);
  }

  /** The first time at which it can pay, by trying: undefined for never. */
  msUntil(tokens: number, nowMs: number): number | undefined {
    const need = tokens * this.#rule.intervalMs;
    if (need > fullLevel(this.#rule)) return undefined;
    const pays = (ms: number) => this.levelAt(nowMs + ms) >= need;
    let late = 1;
    while (!pays(late)) late *= 2;
    let early = -1;
    while (late - early > 1) {
      const middle = Math.floor((early + late) / 2);
      if (pays(middle)) late = middle;
      else early = middle;
    }
    return late;
  }

  /** Takes tokens; a negative number gives some back. Filling up starts with the first draw. */
  draw(tokens: number, nowMs: number): void {
    this.#write(nowMs);
    const { fillAmount, intervalMs, delayInitialFill } = this.#rule;
    const full = fullLevel(this.#rule);
    if (this.#level >= full) {
      this.#fromMs = nowMs + (delayInitialFill ? Math.ceil(full / fillAmount) : 0);
    }
    this.#level = Math.min(full, this.#level - tokens * intervalMs);
  }

  holdFor(id: string, tokens: number, nowMs: number): void {
    this.#write(nowMs);
    this.hold = { id, untilMs: nowMs + (this.msUntil(tokens, nowMs) ?? 0) };
  }

  letGo(): void {
    this.hold = undefined;
  }

  /**
   * Another rule: the tokens stay as far as they fit, and who is first is asked again. `stored` is
   * what Redis had written last, undefined for a bucket that was full and forgotten: what it has
   * filled since then counts by the new rule, and when that was the model does not know.
   */
  change(rule: Bucket, stored: StoredBucket | undefined, nowMs: number): void {
    this.#rule = rule;
    this.#level = stored?.level ?? fullLevel(rule);
    this.#fromMs = stored?.fromMs ?? nowMs;
    if (stored && stored.intervalMs !== rule.intervalMs) {
      this.#level = Math.floor((stored.level / stored.intervalMs) * rule.intervalMs);
    }
    if (stored && stored.stamp !== stampOf(rule)) this.hold = undefined;
    this.#level = Math.min(fullLevel(rule), this.#level);
  }

  #write(nowMs: number): void {
    const { intervalMs, continuous } = this.#rule;
    const level = this.levelAt(nowMs);
    const passedMs = Math.max(0, nowMs - this.#fromMs);
    this.#fromMs += continuous ? passedMs : passedMs - (passedMs % intervalMs);
    this.#level = level;
  }
}

/** A bucket as Redis keeps it: the level is tokens times interval, and holds up to a time. */
export interface StoredBucket {
  readonly level: number;
  readonly fromMs: number;
  readonly intervalMs: number;
  /** The rule that it was written by. */
  readonly stamp: string;
}

/** Reads `level from wait_until held_for capacity fill interval since`, see lua/lib/buckets.lua. */
export function parseBucket(text: string): StoredBucket {
  const [level, fromMs, , , ...rule] = text.split(' ');
  return {
    level: Number(level),
    fromMs: Number(fromMs),
    intervalMs: Number(rule[2]),
    stamp: rule.slice(0, 3).join(' '),
  };
}

const stampOf = ({ capacity, fillAmount, intervalMs }: Bucket) =>
  `${capacity} ${fillAmount} ${intervalMs}`;

const fullLevel = ({ capacity, intervalMs }: Bucket) => capacity * intervalMs;
