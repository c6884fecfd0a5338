import { SluiceError } from '../errors.ts';
import type { End, Follower, Piece } from '../stream/index.ts';
import { decisionOf, publishDecision } from './decisions.ts';
import type { Submitted } from './prompts.ts';
import { endError } from './rejections.ts';

export interface OpenPromptParts {
  readonly submitted: Submitted;
  readonly follower: Follower;
  /** Other clients may ask for it, too. */
  readonly isShared: boolean;
  /** Whether nobody follows it any more. */
  readonly forget: () => Promise<boolean>;
  readonly cancel: () => Promise<unknown>;
  /** `firstTokenAt`: on the monotonic clock, ms. */
  readonly onClose: (outcome: string, firstTokenAt: number | undefined) => void;
}

/** A prompt that was taken in and whose client waits. States: open -> closed, once. */
export class OpenPrompt {
  readonly #parts: OpenPromptParts;
  #isClosed = false;
  /** Whether its policies have heard that it was let in, or was not. */
  #isDecided = false;
  #firstTokenAt: number | undefined;

  constructor(parts: OpenPromptParts) {
    this.#parts = parts;
    if (parts.submitted.result.state !== 'waiting') this.#decide(true);
  }

  get id(): string {
    return this.#parts.submitted.id;
  }

  /** What it is told, in order; after an 'end' there is nothing more. */
  async next(): Promise<Piece> {
    const piece = await this.#parts.follower.next();
    if (piece.kind === 'events') this.#firstTokenAt ??= performance.now();
    this.#decide(decisionOf(piece));
    return piece;
  }

  /** The error for an end that is none of an answer. */
  errorOf(end: End): SluiceError {
    if (end.state === 'cancelled' && this.#parts.isShared && !this.#isClosed) {
      const message = 'the client that sent this first went away; try again';
      return new SluiceError('unavailable', message, { retryAfterMs: 1_000 });
    }
    return endError(end, this.#parts.submitted.deniedStatus);
  }

  /** Nobody waits any more: it leaves the queue, or its replica stops. @throws what Redis does */
  async abandon(outcome = 'cancelled'): Promise<void> {
    if (await this.#close(outcome)) await this.#parts.cancel();
  }

  /** It is over. `outcome`: `done`, or an error's code. */
  async close(outcome: string): Promise<void> {
    await this.#close(outcome);
  }

  #decide(accepted: boolean | undefined): void {
    if (this.#isDecided || accepted === undefined) return;
    this.#isDecided = true;
    publishDecision(this.#parts.submitted, accepted);
  }

  async #close(outcome: string): Promise<boolean> {
    if (this.#isClosed) return false;
    this.#isClosed = true;
    this.#parts.onClose(outcome, this.#firstTokenAt);
    // Whoever waits for the next piece waits no longer.
    const message = 'its client has closed the connection, or its side of it';
    this.#parts.follower.finish({ state: 'cancelled', code: 'cancelled', message });
    return this.#parts.forget();
  }
}
