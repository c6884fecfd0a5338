import { type Fields, isObject, objectIn, parseExactly, replyOf, textIn } from './json.ts';
import { MalformedReply } from './types.ts';

/** Tool calls in Ollama's form: without ids, and with arguments that are objects. */
export function ollamaCalls(calls: unknown): Fields[] | undefined {
  if (!Array.isArray(calls) || calls.length === 0) return undefined;
  return calls.map((call: unknown) => {
    const called = isObject(call) ? objectIn(call, 'function') : undefined;
    const name = textIn(called, 'name');
    if (name === undefined) throw new MalformedReply('the replica called a tool without a name');
    return { function: { name, arguments: argumentsOf(textIn(called, 'arguments') ?? '') } };
  });
}

/** Some servers say nothing where a tool takes nothing. */
function argumentsOf(text: string): Fields {
  return text.trim() === '' ? {} : replyOf(text, parseExactly);
}

interface Gathered {
  readonly id: string | undefined;
  readonly function: { name: string; arguments: string };
}

/** Puts tool calls together that come in pieces, in OpenAI's form still. */
export class ToolCallPieces {
  readonly #calls = new Map<unknown, Gathered>();

  add(pieces: unknown): void {
    for (const piece of Array.isArray(pieces) ? pieces.filter(isObject) : []) {
      const called = objectIn(piece, 'function');
      const call = this.#callOf(piece);
      call.function.name ||= textIn(called, 'name') ?? '';
      call.function.arguments += textIn(called, 'arguments') ?? '';
    }
  }

  /** All that was gathered, once. */
  take(): readonly Gathered[] {
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    return calls;
  }

  /** Some servers leave out the index and send each call whole, with its id. */
  #callOf(piece: Fields): Gathered {
    const id = textIn(piece, 'id');
    const key = piece.index ?? id ?? [...this.#calls.keys()].at(-1);
    const known = this.#calls.get(key);
    if (known) return known;
    const call = { id, function: { name: '', arguments: '' } };
    this.#calls.set(key, call);
    return call;
  }
}
