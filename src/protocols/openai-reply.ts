import { countIn, type Fields, isObject, objectIn } from './json.ts';
import { saidBy } from './native.ts';
import { MalformedReply, ReplicaError } from './types.ts';

/**
 * How far a stream of OpenAI's protocol has come
 * (https://platform.openai.com/docs/api-reference/chat-streaming): chunks, each with a part of some
 * choices, perhaps one with the usage, then `[DONE]`.
 */
export class OpenaiProgress {
  #isDone = false;
  #tokens: number | undefined;
  /** The choices seen so far, by index, and whether each has its finish_reason. */
  readonly #finished = new Map<unknown, boolean>();

  /** A chunk; undefined for `[DONE]`. @throws MalformedReply, ReplicaError */
  read(data: string): Fields | undefined {
    if (data.startsWith('[DONE]')) {
      this.#isDone = true;
      return undefined;
    }
    const chunk = openaiReply(data);
    this.#tokens = tokensOf(chunk) ?? this.#tokens;
    for (const choice of choicesOf(chunk)) {
      const hasFinished = choice.finish_reason !== undefined && choice.finish_reason !== null;
      if (hasFinished || !this.#finished.has(choice.index)) {
        this.#finished.set(choice.index, hasFinished);
      }
    }
    return chunk;
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  get tokens(): number | undefined {
    return this.#tokens;
  }

  /** @throws MalformedReply unless all was said: some servers leave out `[DONE]` */
  mustBeComplete(): void {
    if (this.#isDone) return;
    const all = [...this.#finished.values()];
    if (all.length === 0 || all.includes(false)) {
      throw new MalformedReply('the stream broke off before its end');
    }
  }
}

/** An object in OpenAI's protocol, unless it is an error. @throws MalformedReply, ReplicaError */
export function openaiReply(text: string): Fields {
  const said = saidBy(text);
  // How older versions of vLLM spell errors.
  if (said.object === 'error') throw new ReplicaError(String(said.message));
  return said;
}

export function choicesOf(reply: Fields): Fields[] {
  return Array.isArray(reply.choices) ? reply.choices.filter(isObject) : [];
}

/** Prompt and completion together. */
export function tokensOf(reply: Fields): number | undefined {
  return countIn(objectIn(reply, 'usage'), 'total_tokens');
}
