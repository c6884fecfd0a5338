import {
  invalid,
  isNothing,
  optionalText,
  refuseOthers,
  requiredText,
  untranslatable,
} from './fields.ts';
import { bodyOf, type Fields, isObject, parseExactly } from './json.ts';
import {
  flagOf,
  idleFields,
  isLimit,
  loadOptions,
  neutralFields,
  optionsOf,
} from './ollama-fields.ts';
import { contentOf, openaiMessages } from './ollama-messages.ts';
import type { ClientPrompt, ReplicaRequest, Target } from './types.ts';

/**
 * A prompt for Ollama's API as a request in OpenAI's, as vLLM serves it: with its sampling
 * parameters beyond OpenAI's (https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html).
 * @throws SluiceError invalid_request
 */
export function ollamaToOpenai(prompt: ClientPrompt, target: Target): ReplicaRequest {
  const translate = translations[prompt.path];
  if (!translate) throw invalid('path', 'takes no prompt');
  const { path, body } = translate(bodyOf(prompt.body, parseExactly));
  const model = target.model ?? prompt.model;
  const streams = prompt.stream && path !== '/v1/embeddings';
  // The usage settles what the prompt cost, and is Ollama's counts.
  const streaming = streams ? { stream: true, stream_options: { include_usage: true } } : {};
  return { method: 'POST', path, body: JSON.stringify({ model, ...body, ...streaming }) };
}

interface Translated {
  readonly path: string;
  readonly body: Fields;
}

const translations: Readonly<Record<string, (body: Fields) => Translated>> = {
  '/api/chat': chat,
  '/api/generate': generate,
  '/api/embed': embed,
  '/api/embeddings': embeddings,
};

const common = [...neutralFields, 'options'];
const chatRule = { known: new Set([...common, 'format', 'messages', 'tools']), idle: idleFields };
const generateRule = {
  known: new Set([...common, 'format', 'prompt', 'suffix', 'system', 'raw', 'images']),
  idle: idleFields,
};
const rawRule = {
  known: new Set([...common, 'format', 'prompt', 'suffix', 'raw']),
  idle: idleFields,
};
const embedRule = { known: new Set([...common, 'input', 'truncate', 'dimensions']) };
const embeddingsRule = { known: new Set([...common, 'prompt']) };
const embedOptionRule = { known: loadOptions };

function chat(body: Fields): Translated {
  refuseOthers(body, chatRule, 'openai');
  const tools = isNothing(body.tools) ? {} : { tools: body.tools };
  const messages = openaiMessages(body);
  return { path: '/v1/chat/completions', body: { messages, ...tools, ...asked(body) } };
}

function generate(body: Fields): Translated {
  refuseOthers(body, generateRule, 'openai');
  // Without a prompt Ollama only loads the model.
  const prompt = requiredText(body, 'prompt');
  const suffix = optionalText(body, 'suffix');
  if (suffix !== '' || flagOf(body, 'raw')) {
    // Here no template applies, so nothing but the text itself has a place.
    refuseOthers(body, rawRule, 'openai');
    const text = suffix === '' ? { prompt } : { prompt, suffix };
    // Null is "no limit" for vLLM; without the field it stops after 16 tokens, as OpenAI's did.
    return { path: '/v1/completions', body: { ...text, max_tokens: null, ...asked(body) } };
  }
  const system = optionalText(body, 'system');
  const messages = [
    ...(system === '' ? [] : [{ role: 'system', content: system }]),
    { role: 'user', content: contentOf(body, '', 'prompt') },
  ];
  return { path: '/v1/chat/completions', body: { messages, ...asked(body) } };
}

function embed(body: Fields): Translated {
  refuseOthers(body, embedRule, 'openai');
  refuseOthers(optionsOf(body), embedOptionRule, 'openai', 'options.');
  const { input, dimensions } = body;
  if (isNothing(input) || input === '') throw invalid('input', 'must not be empty');
  return {
    path: '/v1/embeddings',
    body: {
      input,
      ...(isNothing(dimensions) ? {} : { dimensions }),
      // vLLM's word for it: to what the model takes. Without it a text that is too long is refused.
      ...(flagOf(body, 'truncate') ? { truncate_prompt_tokens: -1 } : {}),
    },
  };
}

/** The older spelling: one prompt, one vector. */
function embeddings(body: Fields): Translated {
  refuseOthers(body, embeddingsRule, 'openai');
  refuseOthers(optionsOf(body), embedOptionRule, 'openai', 'options.');
  return { path: '/v1/embeddings', body: { input: requiredText(body, 'prompt') } };
}

/** How the answer is to be: what the options say, and the format. */
function asked(body: Fields): Fields {
  return { ...sampling(optionsOf(body)), ...responseFormat(body.format ?? '') };
}

/** Options that mean the same (https://docs.ollama.com/modelfile#parameter), by Ollama's names. */
const samplingNames: ReadonlyMap<string, string> = new Map([
  ...['temperature', 'top_p', 'top_k', 'min_p', 'seed', 'stop'].map(
    (name) => [name, name] as const,
  ),
  ['presence_penalty', 'presence_penalty'],
  ['frequency_penalty', 'frequency_penalty'],
  ['repeat_penalty', 'repetition_penalty'],
  ['num_predict', 'max_tokens'],
]);

function sampling(options: Fields): Fields {
  const sent: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    if (isNothing(value) || loadOptions.has(name)) continue;
    const theirs = samplingNames.get(name);
    if (theirs === undefined) throw untranslatable(`options.${name}`, 'openai');
    if (name !== 'num_predict' || isLimit(value)) sent[theirs] = value;
  }
  return sent;
}

/** https://docs.ollama.com/capabilities/structured-outputs */
function responseFormat(format: unknown): Fields {
  if (format === '') return {};
  if (format === 'json') return { response_format: { type: 'json_object' } };
  if (!isObject(format))
    throw untranslatable('format', 'openai', 'it is neither json nor a schema');
  const json_schema = { name: 'format', schema: format };
  return { response_format: { type: 'json_schema', json_schema } };
}
