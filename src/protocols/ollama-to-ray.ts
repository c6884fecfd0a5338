import { type Turn, textOf } from './conversation.ts';
import {
  invalid,
  messagesOf,
  optionalText,
  refuseOthers,
  requiredText,
  untranslatable,
} from './fields.ts';
import { bodyOf, type Fields } from './json.ts';
import {
  flagOf,
  idleFields,
  isLimit,
  loadOptions,
  neutralFields,
  optionsOf,
} from './ollama-fields.ts';
import { OllamaVoice } from './ollama-voice.ts';
import { rayExchange } from './ray.ts';
import type { ClientPrompt, Exchange, Target } from './types.ts';

/** A client of Ollama's API at a replica that takes one text. @throws SluiceError invalid_request */
export function ollamaToRay(prompt: ClientPrompt, target: Target): Exchange {
  const embedded = embeddedFields.get(prompt.path);
  if (embedded !== undefined) throw untranslatable(embedded, 'ray', 'it has no embeddings');
  const read = texts[prompt.path];
  if (!read) throw invalid('path', 'takes no prompt');
  const body = bodyOf(prompt.body);
  const text = read(body, target.template);
  refuseOptions(body);
  return rayExchange(text, 'ollama', new OllamaVoice(prompt.path, prompt.model));
}

const texts: Readonly<Record<string, (body: Fields, template: Target['template']) => string>> = {
  '/api/generate': textOfGenerate,
  '/api/chat': textOfChat,
};

/** What is to be embedded, by path. */
const embeddedFields = new Map([
  ['/api/embed', 'input'],
  ['/api/embeddings', 'prompt'],
]);

const common = [...neutralFields, 'options'];
const generateRule = { known: new Set([...common, 'prompt', 'system', 'raw']), idle: idleFields };
const chatRule = { known: new Set([...common, 'messages']), idle: idleFields };
const messageRule = {
  known: new Set(['role', 'content']),
  idle: new Map<string, unknown>([['thinking', '']]),
};
const optionRule = { known: new Set([...loadOptions, 'num_predict']) };

function textOfGenerate(body: Fields, template: Target['template']): string {
  refuseOthers(body, generateRule, 'ray');
  const user = { role: 'user', content: requiredText(body, 'prompt'), at: 'prompt' };
  const system = optionalText(body, 'system');
  if (system === '') return flagOf(body, 'raw') ? user.content : textOf([user], template);
  if (flagOf(body, 'raw')) throw untranslatable('system', 'ray', 'a raw prompt has none');
  return textOf([{ role: 'system', content: system, at: 'system' }, user], template);
}

function textOfChat(body: Fields, template: Target['template']): string {
  refuseOthers(body, chatRule, 'ray');
  const turns = messagesOf(body).map(({ at, message }): Turn => {
    refuseOthers(message, messageRule, 'ray', `${at}.`);
    if (typeof message.role !== 'string') throw invalid(`${at}.role`, 'must be a text');
    return { role: message.role, content: optionalText(message, 'content', `${at}.`), at };
  });
  return textOf(turns, template);
}

function refuseOptions(body: Fields): void {
  const options = optionsOf(body);
  refuseOthers(options, optionRule, 'ray', 'options.');
  const { num_predict = null } = options;
  if (num_predict !== null && isLimit(num_predict)) {
    throw untranslatable('options.num_predict', 'ray');
  }
}
