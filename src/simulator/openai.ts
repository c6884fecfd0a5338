/**
 * OpenAI's protocol, as vLLM serves it (https://platform.openai.com/docs/api-reference): one JSON
 * object, or server-sent events that end with `data: [DONE]` when `stream` is true.
 */

import { randomUUID } from 'node:crypto';
import { errorTable, SluiceError } from '../errors.ts';
import type { Call, Catalog, Incoming, Page, Protocol, Rendering } from './protocol.ts';
import {
  conversationOf,
  flagOf,
  integerOf,
  invalid,
  isObject,
  jsonFrame,
  jsonPage,
  objectOf,
  textOf,
  textsOf,
  toolFrame,
  toolOf,
} from './protocol.ts';
import { type Answer, countTokens, embed } from './text.ts';

export const openai: Protocol = {
  name: 'openai',
  owns: (path) => path.startsWith('/v1/'),
  prompts: {
    'POST /v1/chat/completions': chatCompletion,
    'POST /v1/completions': completion,
    'POST /v1/embeddings': embeddings,
  },
  pages: { 'GET /v1/models': models },
  error(error) {
    const type = errorTable[error.code].http < 500 ? 'invalid_request_error' : 'server_error';
    const code = error.code === 'unknown_model' ? 'model_not_found' : error.code;
    return jsonPage({
      error: { message: error.message, type, param: error.param ?? null, code },
    });
  },
};

/** How the parts of an answer are spelled; chat, tools and the older completions differ only here. */
interface Dialect {
  readonly idPrefix: string;
  readonly wholeObject: string;
  readonly chunkObject: string;
  whole(text: string): Record<string, unknown>;
  chunks(text: string, isFirst: boolean): Record<string, unknown>[];
  readonly close: Record<string, unknown>;
  /** Absent: as the answer ended. */
  readonly finishReason?: string;
}

const chatDialect: Dialect = {
  idPrefix: 'chatcmpl-',
  wholeObject: 'chat.completion',
  chunkObject: 'chat.completion.chunk',
  whole: (text) => ({ message: { role: 'assistant', content: text } }),
  chunks: (text, isFirst) => [
    { delta: isFirst ? { role: 'assistant', content: text } : { content: text } },
  ],
  close: { delta: {} },
};

const completionDialect: Dialect = {
  idPrefix: 'cmpl-',
  wholeObject: 'text_completion',
  chunkObject: 'text_completion',
  whole: (text) => ({ text }),
  chunks: (text) => [{ text }],
  close: { text: '' },
};

/** A call of this tool instead of a text; the answer's text is its arguments. */
function toolDialect(name: string): Dialect {
  const id = `call_${randomUUID()}`;
  const call = (text: string) => ({ id, type: 'function', function: { name, arguments: text } });
  const message = { role: 'assistant', content: null };
  const opening = { delta: { ...message, tool_calls: [{ index: 0, ...call('') }] } };
  return {
    ...chatDialect,
    whole: (text) => ({ message: { ...message, tool_calls: [call(text)] } }),
    chunks(text, isFirst) {
      const piece = { delta: { tool_calls: [{ index: 0, function: { arguments: text } }] } };
      return isFirst ? [opening, piece] : [piece];
    },
    finishReason: 'tool_calls',
  };
}

function chatCompletion(incoming: Incoming, catalog: Catalog): Call {
  const fields = objectOf(incoming.body);
  const model = modelOf(fields, catalog);
  const tool = toolOf(fields);
  const input = conversationOf(fields);
  if (tool === undefined) return answerCall(fields, model, input, chatDialect);
  return { ...answerCall(fields, model, input, toolDialect(tool)), frame: toolFrame };
}

function completion(incoming: Incoming, catalog: Catalog): Call {
  const fields = objectOf(incoming.body);
  const model = modelOf(fields, catalog);
  const [prompt, ...others] = textsOf(fields, 'prompt');
  if (prompt === undefined || others.length > 0) {
    throw invalid('prompt must be one string: this replica does not batch prompts', 'prompt');
  }
  return answerCall(fields, model, prompt, completionDialect);
}

function answerCall(
  fields: Record<string, unknown>,
  model: string,
  input: string,
  dialect: Dialect,
): Call {
  const choices = integerOf(fields, 'n') ?? 1;
  if (choices < 1 || choices > 4) throw invalid('n must be 1 to 4', 'n');
  const limitName = fields.max_completion_tokens == null ? 'max_tokens' : 'max_completion_tokens';
  const maxTokens = integerOf(fields, limitName);
  if (maxTokens !== undefined && maxTokens < 1) throw invalid('must be at least 1', limitName);
  const streamOptions = fields.stream_options ?? {};
  if (!isObject(streamOptions)) throw invalid('stream_options must be an object', 'stream_options');
  const withUsage = flagOf(streamOptions, 'include_usage', false);
  const promptTokens = countTokens(input);
  const format = isObject(fields.response_format) ? fields.response_format.type : undefined;
  return {
    input,
    promptTokens,
    kind: 'answer',
    maxTokens,
    frame: format === 'json_object' ? jsonFrame : undefined,
    stream: flagOf(fields, 'stream', false),
    render: (answer) =>
      answerRendering({ model, promptTokens, answer, choices, dialect, withUsage }),
  };
}

/** Several choices are the same text, written once: they take the card no longer than one. */
function answerRendering(options: {
  model: string;
  promptTokens: number;
  answer: Answer;
  choices: number;
  dialect: Dialect;
  withUsage: boolean;
}): Rendering {
  const { model, promptTokens, answer, dialect, withUsage } = options;
  const finishReason = dialect.finishReason ?? answer.finishReason;
  const completionTokens = options.choices * answer.tokens.length;
  const id = `${dialect.idPrefix}${randomUUID()}`;
  const created = Math.floor(Date.now() / 1000);
  const usage = {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
  const event = (choices: object[], eventUsage: object | null) => {
    const head = { id, object: dialect.chunkObject, created, model, choices };
    return `data: ${JSON.stringify(withUsage ? { ...head, usage: eventUsage } : head)}\n\n`;
  };
  const choices = (part: object, finish_reason: string | null) =>
    Array.from({ length: options.choices }, (_, index) => {
      return { index, ...part, logprobs: null, finish_reason };
    });
  /** One event for each choice. */
  const events = (part: object, reason: string | null) =>
    choices(part, reason)
      .map((choice) => event([choice], null))
      .join('');
  return {
    whole: () =>
      jsonPage({
        id,
        object: dialect.wholeObject,
        created,
        model,
        choices: choices(dialect.whole(answer.tokens.join('')), finishReason),
        usage,
      }),
    stream: {
      contentType: 'text/event-stream; charset=utf-8',
      chunk: (text, isFirst) =>
        dialect
          .chunks(text, isFirst)
          .map((part) => events(part, null))
          .join(''),
      last() {
        const closing = events(dialect.close, finishReason);
        return `${closing}${withUsage ? event([], usage) : ''}data: [DONE]\n\n`;
      },
      broken: 'data: {"choices":[{"delta"\n\n',
      error: `data: ${JSON.stringify({ error: streamError })}\n\n`,
    },
  };
}

const streamError = {
  message: 'a simulated error in the stream',
  type: 'server_error',
  param: null,
  code: 'internal',
};

function embeddings(incoming: Incoming, catalog: Catalog): Call {
  const fields = objectOf(incoming.body);
  const model = modelOf(fields, catalog);
  const texts = textsOf(fields, 'input');
  const dimensions = integerOf(fields, 'dimensions') ?? catalog.embeddingDimensions;
  if (dimensions < 1 || dimensions > 4096) throw invalid('must be 1 to 4096', 'dimensions');
  const encoding = fields.encoding_format ?? 'float';
  if (encoding !== 'float' && encoding !== 'base64') {
    throw invalid('encoding_format must be float or base64', 'encoding_format');
  }
  const promptTokens = texts.reduce((sum, text) => sum + countTokens(text), 0);
  const vector = (text: string) => {
    const values = embed(text, dimensions);
    if (encoding === 'float') return values;
    return Buffer.from(Float32Array.from(values).buffer).toString('base64');
  };
  const whole = () =>
    jsonPage({
      object: 'list',
      data: texts.map((text, index) => ({ object: 'embedding', index, embedding: vector(text) })),
      model,
      usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
    });
  return {
    input: texts.join('\n'),
    promptTokens,
    kind: 'embedding',
    stream: false,
    render: () => ({ whole }),
  };
}

function models(_: Incoming, catalog: Catalog): Page {
  const created = Math.floor(catalog.since.getTime() / 1000);
  const data = catalog.models.map((id) => ({ id, object: 'model', created, owned_by: 'sluice' }));
  return jsonPage({ object: 'list', data });
}

function modelOf(fields: Record<string, unknown>, catalog: Catalog): string {
  const model = textOf(fields, 'model');
  if (catalog.models.includes(model)) return model;
  const message = `The model \`${model}\` does not exist.`;
  throw new SluiceError('unknown_model', message, { param: 'model' });
}
