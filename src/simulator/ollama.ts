/**
 * Ollama's protocol (https://docs.ollama.com/api): NDJSON unless `stream` is false, durations in
 * nanoseconds, errors as `{error: "..."}`.
 */

import { SluiceError } from '../errors.ts';
import type { Timing } from './engine.ts';
import type { Call, Catalog, Incoming, Protocol } from './protocol.ts';
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

export const ollama: Protocol = {
  name: 'ollama',
  owns: (path) => path === '/' || path.startsWith('/api/'),
  prompts: {
    'POST /api/generate': generate,
    'POST /api/chat': chat,
    'POST /api/embed': embedding,
    'POST /api/embeddings': olderEmbedding,
  },
  pages: {
    'GET /': () => ({ contentType: 'text/plain; charset=utf-8', body: 'Ollama is running' }),
    'GET /api/version': () => jsonPage({ version: '0.0.0-simulator' }),
    'GET /api/tags': (_, catalog) =>
      jsonPage({ models: catalog.models.map((name) => description(name, catalog)) }),
    'GET /api/ps': loaded,
    'POST /api/show': show,
  },
  error: (error) => jsonPage({ error: error.message }),
};

/** The part of an answer's JSON that differs between generate and chat. */
type Say = (text: string) => Record<string, unknown>;

function generate(incoming: Incoming, catalog: Catalog): Call {
  const fields = objectOf(incoming.body);
  const model = modelOf(fields, catalog);
  const prompt = textOf(fields, 'prompt');
  const system = typeof fields.system === 'string' ? `${fields.system}\n` : '';
  return answerCall(fields, model, `${system}${prompt}`, (text) => ({ response: text }));
}

function chat(incoming: Incoming, catalog: Catalog): Call {
  const fields = objectOf(incoming.body);
  const model = modelOf(fields, catalog);
  const tool = toolOf(fields);
  const say: Say = (text) => ({ message: { role: 'assistant', content: text } });
  const call = answerCall(fields, model, conversationOf(fields), say);
  if (tool === undefined) return call;
  return {
    ...call,
    frame: toolFrame,
    render: (answer) => toolRendering(model, call.promptTokens, answer, tool),
  };
}

function answerCall(fields: Record<string, unknown>, model: string, input: string, say: Say): Call {
  const options = fields.options ?? {};
  if (!isObject(options)) throw invalid('options must be an object', 'options');
  const predict = integerOf(options, 'num_predict') ?? -1;
  const promptTokens = countTokens(input);
  return {
    input,
    promptTokens,
    kind: 'answer',
    maxTokens: predict > 0 ? predict : undefined, // Ollama takes 0, -1 and -2 as "no limit"
    frame: fields.format === 'json' ? jsonFrame : undefined,
    stream: flagOf(fields, 'stream', true),
    render: (answer) => answerRendering(model, promptTokens, answer, say),
  };
}

function answerRendering(model: string, promptTokens: number, answer: Answer, say: Say) {
  const head = () => ({ model, created_at: new Date().toISOString() });
  const final = (text: string, timing: Timing) => ({
    ...head(),
    ...say(text),
    done: true,
    done_reason: answer.finishReason,
    total_duration: nanoseconds(timing.totalMs),
    load_duration: 0,
    prompt_eval_count: promptTokens,
    prompt_eval_duration: nanoseconds(timing.prefillMs),
    eval_count: answer.tokens.length,
    eval_duration: nanoseconds(timing.decodeMs),
  });
  return {
    whole: (timing: Timing) => jsonPage(final(answer.tokens.join(''), timing)),
    stream: {
      contentType: 'application/x-ndjson',
      chunk: (text: string) => `${JSON.stringify({ ...head(), ...say(text), done: false })}\n`,
      last: (timing: Timing) => `${JSON.stringify(final('', timing))}\n`,
      broken: `{"model":${JSON.stringify(model)},"created_at"\n`,
      error: `${JSON.stringify({ error: 'a simulated error in the stream' })}\n`,
    },
  };
}

/** A tool call is one piece: a stream is silent until the arguments are all written. */
function toolRendering(model: string, promptTokens: number, answer: Answer, tool: string) {
  const say: Say = (text) => {
    const calls = text && [{ function: { name: tool, arguments: JSON.parse(text) } }];
    return { message: { role: 'assistant', content: '', ...(calls && { tool_calls: calls }) } };
  };
  const { whole, stream } = answerRendering(model, promptTokens, answer, say);
  const last = (timing: Timing) => `${stream.chunk(answer.tokens.join(''))}${stream.last(timing)}`;
  return { whole, stream: { ...stream, chunk: () => '', last } };
}

function embedding(incoming: Incoming, catalog: Catalog): Call {
  const fields = objectOf(incoming.body);
  const model = modelOf(fields, catalog);
  const texts = textsOf(fields, 'input');
  const promptTokens = texts.reduce((sum, text) => sum + countTokens(text), 0);
  const whole = (timing: Timing) =>
    jsonPage({
      model,
      embeddings: texts.map((text) => embed(text, catalog.embeddingDimensions)),
      total_duration: nanoseconds(timing.totalMs),
      load_duration: 0,
      prompt_eval_count: promptTokens,
    });
  return {
    input: texts.join('\n'),
    promptTokens,
    kind: 'embedding',
    stream: false,
    render: () => ({ whole }),
  };
}

/** One text, and the vector alone. */
function olderEmbedding(incoming: Incoming, catalog: Catalog): Call {
  const fields = objectOf(incoming.body);
  modelOf(fields, catalog);
  const input = textOf(fields, 'prompt');
  const whole = () => jsonPage({ embedding: embed(input, catalog.embeddingDimensions) });
  return {
    input,
    promptTokens: countTokens(input),
    kind: 'embedding',
    stream: false,
    render: () => ({ whole }),
  };
}

/** The one model that is in memory, under its own name. */
function loaded(_: Incoming, catalog: Catalog) {
  const models = catalog.models.slice(0, 1).map((name) => {
    const { modified_at: _modified, ...model } = description(name, catalog);
    const expires_at = new Date(Date.now() + 5 * 60_000).toISOString();
    return { ...model, expires_at, size_vram: model.size };
  });
  return jsonPage({ models });
}

function show(incoming: Incoming, catalog: Catalog) {
  const fields = objectOf(incoming.body);
  // `name` is the older spelling, which Ollama still takes.
  const model = modelOf(fields.model === undefined ? { model: fields.name } : fields, catalog);
  return jsonPage({
    modelfile: `# A simulated replica\nFROM ${model}`,
    parameters: '',
    template: '[INST] {{ .Prompt }} [/INST]',
    details: modelDetails,
    model_info: { 'general.architecture': 'llama', 'llama.context_length': 32768 },
    capabilities: ['completion', 'embedding'],
    modified_at: catalog.since.toISOString(),
  });
}

const modelDetails = {
  parent_model: '',
  format: 'simulated',
  family: 'llama',
  families: ['llama'],
  parameter_size: '7.2B',
  quantization_level: 'F16',
};

function description(name: string, catalog: Catalog) {
  return {
    name,
    model: name,
    modified_at: catalog.since.toISOString(),
    size: 14_480_000_000,
    digest: '0'.repeat(64),
    details: modelDetails,
  };
}

function modelOf(fields: Record<string, unknown>, catalog: Catalog): string {
  const model = textOf(fields, 'model');
  if (catalog.models.includes(model)) return model;
  throw new SluiceError('unknown_model', `model '${model}' not found`, { param: 'model' });
}

function nanoseconds(ms: number): number {
  return Math.round(ms * 1e6);
}
