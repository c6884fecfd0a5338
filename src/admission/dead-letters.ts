import type { RunStep } from './replicas.ts';
import type { DeadLetter } from './views.ts';
import { readableLetter, type Stored } from './wire.ts';

type StoredLetter = Stored<DeadLetter>;

/** Letters that one step takes away. */
const droppedAtOnce = 100;

/** Prompts that failed on too many replicas: `lua/dead_letters.lua`. */
export class DeadLetters {
  readonly #run: RunStep;

  constructor(run: RunStep) {
    this.#run = run;
  }

  /** The newest first, without what they asked. `after`: how many to pass over. */
  async list(after: number, count: number): Promise<{ letters: DeadLetter[]; total: number }> {
    type Listed = { letters: StoredLetter[] | Record<string, never>; total: number };
    const { letters, total } = await this.#run<Listed>('dead_letters', {
      what: 'list',
      after,
      count,
    });
    // cjson writes an empty list as {}.
    return { letters: Array.isArray(letters) ? letters.map(readableLetter) : [], total };
  }

  /** One, with what its replicas were sent. */
  async read(id: string): Promise<{ letter: DeadLetter; body: string } | undefined> {
    type Read = { letter?: StoredLetter; body?: string };
    const { letter, body } = await this.#run<Read>('dead_letters', { what: 'read', id });
    return letter && body !== undefined ? { letter: readableLetter(letter), body } : undefined;
  }

  /** Says how many there were. */
  async drop(ids: readonly string[]): Promise<number> {
    let dropped = 0;
    for (let from = 0; from < ids.length; from += droppedAtOnce) {
      const some = ids.slice(from, from + droppedAtOnce);
      dropped += (await this.#drop({ what: 'drop', ids: some })).dropped;
    }
    return dropped;
  }

  /** All of them: says how many there were. */
  async purge(): Promise<number> {
    let dropped = 0;
    for (;;) {
      const some = await this.#drop({ what: 'purge' });
      dropped += some.dropped;
      if (some.left === 0 || some.dropped === 0) return dropped;
    }
  }

  #drop(args: object): Promise<{ dropped: number; left: number }> {
    return this.#run('dead_letters', args);
  }
}
