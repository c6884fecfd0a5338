import {
  invalid,
  isNothing,
  messagesOf,
  optionalText,
  refuseOthers,
  untranslatable,
} from './fields.ts';
import { type Fields, isObject, textIn } from './json.ts';

/**
 * The messages of a conversation in OpenAI's form. Ollama's tool calls have no ids and arguments
 * that are objects (https://docs.ollama.com/capabilities/tool-calling); OpenAI's have ids, which
 * the answers name, and arguments that are texts
 * (https://platform.openai.com/docs/guides/function-calling). The ids are ours: `call_1` and on.
 */
export function openaiMessages(body: Fields): Fields[] {
  const calls = new Calls();
  return messagesOf(body).map(({ at, message }) => {
    refuseOthers(message, messageRule, 'openai', `${at}.`);
    const { role } = message;
    if (typeof role !== 'string') throw invalid(`${at}.role`, 'must be a text');
    const content = contentOf(message, `${at}.`);
    if (role === 'tool') return { role, tool_call_id: calls.answered(message, at), content };
    if (isNothing(message.tool_calls)) return { role, content };
    return { role, content, tool_calls: calls.made(message.tool_calls, `${at}.tool_calls`) };
  });
}

const messageRule = {
  known: new Set(['role', 'content', 'images', 'tool_calls', 'tool_name', 'tool_call_id']),
  idle: new Map<string, unknown>([['thinking', '']]),
};

/** A text, or a list of parts where there are images. */
export function contentOf(message: Fields, within: string, text = 'content'): unknown {
  const content = optionalText(message, text, within);
  const { images } = message;
  if (isNothing(images)) return content;
  if (!Array.isArray(images)) throw invalid(`${within}images`, 'must be a list');
  const parts = images.map((image: unknown, index) => ({
    type: 'image_url',
    image_url: { url: dataUrl(image, `${within}images[${index}]`) },
  }));
  return content === '' ? parts : [{ type: 'text', text: content }, ...parts];
}

/** How the images that models take begin, in base64. */
const imageTypes: readonly (readonly [RegExp, string])[] = [
  [/^iVBORw0KGgo/, 'image/png'],
  [/^\/9j\//, 'image/jpeg'],
  [/^R0lGOD/, 'image/gif'],
  // RIFF, four bytes of length, WEBP.
  [/^UklGR[\w+/]{6}XRUJQ/, 'image/webp'],
];

function dataUrl(image: unknown, at: string): string {
  const [, type] =
    imageTypes.find(([start]) => typeof image === 'string' && start.test(image)) ?? [];
  if (type === undefined) {
    throw untranslatable(at, 'openai', 'it must be a PNG, JPEG, WebP or GIF in base64');
  }
  return `data:${type};base64,${String(image)}`;
}

interface Call {
  readonly id: string;
  readonly name: string;
}

/** Gives the calls of a conversation their ids, and the answers the ids of their calls. */
class Calls {
  #made = 0;
  /** Those of the latest message with calls that nobody answered yet. */
  #open: Call[] = [];

  made(given: unknown, at: string): Fields[] {
    if (!Array.isArray(given)) throw invalid(at, 'must be a list');
    this.#open = [];
    return given.map((call: unknown, index) => {
      const called = isObject(call) && isObject(call.function) ? call.function : undefined;
      const name = textIn(called, 'name');
      if (!isObject(call) || !called || name === undefined) {
        throw invalid(`${at}[${index}].function`, 'must have a name');
      }
      const id = textIn(call, 'id') || `call_${++this.#made}`;
      this.#open.push({ id, name });
      const args = JSON.stringify(called.arguments ?? {});
      return { id, type: 'function', function: { name, arguments: args } };
    });
  }

  /** The call that a message of a tool answers: by id, by the tool's name, or else the next. */
  answered(message: Fields, at: string): string {
    const id = optionalText(message, 'tool_call_id', `${at}.`);
    const name = optionalText(message, 'tool_name', `${at}.`);
    const index = this.#open.findIndex(
      (call) => (id === '' || call.id === id) && (name === '' || call.name === name),
    );
    const [call] = index === -1 ? [] : this.#open.splice(index, 1);
    if (!call) throw untranslatable(at, 'openai', 'it answers no call before it');
    return call.id;
  }
}
