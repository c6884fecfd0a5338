import { randomUUID } from 'node:crypto';
import { type Turn, textOf } from './conversation.ts';
import { invalid, messagesOf, refuseOthers, untranslatable } from './fields.ts';
import { bodyOf, type Fields, isObject, textIn } from './json.ts';
import { rayExchange, type TextVoice } from './ray.ts';
import type { ClientPrompt, Exchange, Target } from './types.ts';

/** A client of OpenAI's API at a replica that takes one text. @throws SluiceError invalid_request */
export function openaiToRay(prompt: ClientPrompt, target: Target): Exchange {
  const body = bodyOf(prompt.body);
  if (prompt.path === '/v1/chat/completions') {
    refuseOthers(body, { known: chatFields, idle }, 'ray');
    const turns = messagesOf(body).map(({ at, message }) => turnOf(message, at));
    return rayExchange(textOf(turns, target.template), 'openai', voice(prompt, chat));
  }
  if (prompt.path === '/v1/completions') {
    refuseOthers(body, { known: completionFields, idle }, 'ray');
    return rayExchange(onePrompt(body), 'openai', voice(prompt, completion));
  }
  throw untranslatable('input', 'ray', 'it has no embeddings');
}

/** They say who asks, what is kept and how the answer travels: not what it is. */
const neutral = [
  ...['model', 'stream', 'stream_options', 'user', 'safety_identifier'],
  ...['prompt_cache_key', 'metadata', 'store', 'service_tier'],
];
const chatFields = new Set([...neutral, 'messages']);
const completionFields = new Set([...neutral, 'prompt']);
const idle = new Map<string, unknown>([
  ['n', 1],
  ['best_of', 1],
  ['echo', false],
  ['logprobs', false],
]);

const messageRule = { known: new Set(['role', 'content']) };
const partRule = { known: new Set(['type', 'text']) };

function turnOf(message: Fields, at: string): Turn {
  refuseOthers(message, messageRule, 'ray', `${at}.`);
  const { role, content } = message;
  if (typeof role !== 'string') throw invalid(`${at}.role`, 'must be a text');
  if (typeof content === 'string') return { role, content, at };
  if (!Array.isArray(content)) throw invalid(`${at}.content`, 'must be a text or a list');
  const texts = content.map((part: unknown, index) => textOfPart(part, `${at}.content[${index}]`));
  return { role, content: texts.join(''), at };
}

function textOfPart(part: unknown, at: string): string {
  if (!isObject(part)) throw invalid(at, 'must be an object');
  const text = textIn(part, 'text');
  if (part.type !== 'text' || text === undefined) throw untranslatable(at, 'ray');
  refuseOthers(part, partRule, 'ray', `${at}.`);
  return text;
}

/** Raw by definition: no template. */
function onePrompt({ prompt }: Fields): string {
  const text = Array.isArray(prompt) && prompt.length === 1 ? prompt[0] : prompt;
  if (typeof text === 'string' && text !== '') return text;
  throw untranslatable('prompt', 'ray', 'it takes one text that is not empty');
}

/** How the parts of an answer are spelled; chat and the older completions differ only here. */
interface Dialect {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunk: string;
  whole(text: string): Fields;
  piece(text: string): Fields;
  readonly last: Fields;
}

const chat: Dialect = {
  idPrefix: 'chatcmpl-',
  object: 'chat.completion',
  chunk: 'chat.completion.chunk',
  whole: (content) => ({ message: { role: 'assistant', content, refusal: null } }),
  piece: (content) => ({ delta: { role: 'assistant', content } }),
  last: { delta: {} },
};

const completion: Dialect = {
  idPrefix: 'cmpl-',
  object: 'text_completion',
  chunk: 'text_completion',
  whole: (text) => ({ text }),
  piece: (text) => ({ text }),
  last: { text: '' },
};

/** Without usage, even where it was asked for: the replica does not count. */
function voice({ model }: ClientPrompt, dialect: Dialect): TextVoice {
  const id = `${dialect.idPrefix}${randomUUID()}`;
  const said = (object: string, part: Fields, finish_reason: string | null) =>
    JSON.stringify({
      id,
      object,
      created: Math.floor(Date.now() / 1000),
      model,
      choices: [{ index: 0, ...part, logprobs: null, finish_reason }],
    });
  return {
    whole: (text) => said(dialect.object, dialect.whole(text), 'stop'),
    events: (text) => [
      said(dialect.chunk, dialect.piece(text), null),
      said(dialect.chunk, dialect.last, 'stop'),
    ],
  };
}
