import type { TextVoice } from './ray.ts';

/** What a part of an answer says. */
export interface Said {
  readonly content: string;
  readonly thinking?: string | undefined;
  readonly toolCalls?: readonly unknown[] | undefined;
}

/** How an answer ended, and what it cost where that is known. */
export interface Ending {
  readonly reason: string;
  readonly promptTokens?: number | undefined;
  readonly answerTokens?: number | undefined;
}

/**
 * Speaks to a client of Ollama's /api/chat and /api/generate
 * (https://docs.ollama.com/api/chat, https://docs.ollama.com/api/generate). The times are its own:
 * until something was heard the replica read the prompt, from then on it wrote. What comes in one
 * piece counts as written.
 */
export class OllamaVoice implements TextVoice {
  readonly #isChat: boolean;
  readonly #model: string;
  readonly #startedAt = performance.now();
  #heardAt: number | undefined;

  constructor(path: string, model: string) {
    this.#isChat = path === '/api/chat';
    this.#model = model;
  }

  /** The replica said something: its reading is over. */
  heard(): void {
    this.#heardAt ??= performance.now();
  }

  /** A part of a stream. */
  piece(said: Said): string {
    return JSON.stringify({ ...this.#said(said), done: false });
  }

  /** A whole reply, or the last part of a stream. */
  last(said: Said, ending: Ending): string {
    const now = performance.now();
    const heardAt = this.#heardAt ?? this.#startedAt;
    return JSON.stringify({
      ...this.#said(said),
      done: true,
      done_reason: ending.reason,
      total_duration: nanoseconds(now - this.#startedAt),
      load_duration: 0,
      prompt_eval_count: ending.promptTokens,
      prompt_eval_duration: nanoseconds(heardAt - this.#startedAt),
      eval_count: ending.answerTokens,
      eval_duration: nanoseconds(now - heardAt),
    });
  }

  /** A reply to /api/embed. */
  embeddings(vectors: readonly unknown[], promptTokens: number | undefined): string {
    return JSON.stringify({
      model: this.#model,
      embeddings: vectors,
      total_duration: nanoseconds(performance.now() - this.#startedAt),
      load_duration: 0,
      prompt_eval_count: promptTokens,
    });
  }

  whole(text: string): string {
    return this.last({ content: text }, { reason: 'stop' });
  }

  events(text: string): readonly string[] {
    return [this.piece({ content: text }), this.last({ content: '' }, { reason: 'stop' })];
  }

  #said({ content, thinking, toolCalls }: Said) {
    const head = { model: this.#model, created_at: new Date().toISOString() };
    if (!this.#isChat) return { ...head, response: content, thinking };
    return { ...head, message: { role: 'assistant', content, thinking, tool_calls: toolCalls } };
  }
}

function nanoseconds(ms: number): number {
  return Math.round(ms * 1e6);
}
