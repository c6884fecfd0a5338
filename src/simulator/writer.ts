/** Writes one answer as its protocol spells it, whole or piece by piece, with what a fault does to it. */

import type { ServerResponse } from 'node:http';
import type { Timing } from './engine.ts';
import type { Fault } from './faults.ts';
import { sendPage } from './http.ts';
import { jsonType, type Page, type Rendering } from './protocol.ts';
import { type Answer, wordsOf } from './text.ts';

export class Writer {
  readonly #response: ServerResponse;
  readonly #rendering: Rendering;
  readonly #answer: Answer;
  readonly #fault: Fault | undefined;
  readonly #stream: Rendering['stream'];
  #floodAt: number | undefined;
  #sent = 0;

  constructor(options: {
    response: ServerResponse;
    rendering: Rendering;
    answer: Answer;
    streamed: boolean;
    fault: Fault | undefined;
  }) {
    const { response, rendering, answer, streamed, fault } = options;
    this.#response = response;
    this.#rendering = rendering;
    this.#answer = answer;
    this.#fault = fault;
    this.#stream = streamed ? rendering.stream : undefined;
    if (fault?.mode === 'endless') this.#stream ??= endlessText;
    if (fault?.mode === 'flood') this.#floodAt = tokensBefore(fault, answer);
    if (fault?.mode === 'headers') this.#setOddHeaders();
  }

  /** Whether tokens are sent as they are written. */
  get streams(): boolean {
    return this.#stream !== undefined;
  }

  /** So many tokens are written by now. `flushed` is called when they have left, if any had to. */
  write(written: number, flushed?: () => void): void {
    const floodAt = this.#floodAt;
    if (this.#stream && floodAt !== undefined && written >= floodAt) {
      this.#floodAt = undefined;
      this.write(floodAt);
      this.#chunk(floodText(this.#fault));
    }
    if (!this.#stream || written === this.#sent) {
      flushed?.();
      return;
    }
    this.#chunk(wordsOf(this.#answer, this.#sent, written), flushed);
    this.#sent = written;
  }

  /** The protocol's own end, or the whole answer. */
  finish(timing: Timing): void {
    if (!this.#stream) {
      const page = this.#rendering.whole(timing);
      sendPage(this.#response, 200, { ...page, contentType: this.#typed(page.contentType) });
      return;
    }
    this.#head();
    if (this.#fault?.mode === 'headers') this.#response.addTrailers({ 'x-odd-trailer': 'odd' });
    this.#response.end(this.#stream.last(timing));
  }

  /** Something that is no JSON, and no more. */
  garble(timing: Timing): void {
    if (this.#stream) this.#endWith(this.#stream.broken);
    else sendPage(this.#response, 200, firstHalf(this.#rendering.whole(timing)));
  }

  /** An error inside of a stream, and no more. */
  fail(): void {
    this.#endWith(this.#stream?.error ?? '');
  }

  #chunk(text: string, flushed?: () => void): void {
    const isFirst = !this.#response.headersSent;
    this.#head();
    this.#response.write(this.#stream?.chunk(text, isFirst) ?? '', flushed);
  }

  #endWith(text: string): void {
    this.#head();
    this.#response.end(text);
  }

  #head(): void {
    if (!this.#stream || this.#response.headersSent) return;
    this.#response.writeHead(200, {
      'content-type': this.#typed(this.#stream.contentType),
      'cache-control': 'no-cache',
    });
  }

  #typed(contentType: string): string {
    return this.#fault?.mode === 'headers' ? `${contentType}; odd=1; odd=2` : contentType;
  }

  #setOddHeaders(): void {
    this.#response.setHeader('set-cookie', ['odd=1; Path=/', 'odd=2; Path=/; HttpOnly']);
    this.#response.setHeader('x-long', 'x'.repeat(8 * 1024));
    this.#response.setHeader('x-odd', '\u00e9');
    if (this.#stream) this.#response.setHeader('trailer', 'x-odd-trailer');
  }
}

/** How many tokens come before what the fault does; of a shorter answer all. */
export function tokensBefore(fault: Fault, { tokens }: Answer): number {
  return Math.min(fault.after_tokens ?? 1, tokens.length);
}

/** What `flood` sends at once. */
export function floodText(fault: Fault | undefined): string {
  return 'x'.repeat(fault?.bytes ?? 10_000_000);
}

/** What is not streamed, without an end: a JSON text that is never closed. */
const endlessText: Rendering['stream'] = {
  contentType: jsonType,
  chunk: (text, isFirst) => (isFirst ? `"${text}` : text),
  last: () => '"',
  broken: '',
  error: '',
};

function firstHalf({ contentType, body }: Page): Page {
  return { contentType, body: body.slice(0, Math.floor(body.length / 2)) };
}
