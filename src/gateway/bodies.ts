import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { estimateTokens, validateLabels } from '../policy/index.ts';
import type { ClientPrompt } from '../protocols/index.ts';

/**
 * The bodies of prompts, by path: what must be there, and what a scheduler needs of it. The body
 * itself goes to the replica as it came.
 */

type Body = Record<string, unknown>;

/** A JSON body, read, and as it came. */
export interface JsonBody {
  readonly value: unknown;
  readonly text: string;
}

/** What a body says to the scheduler. */
export interface ParsedPrompt {
  readonly client: ClientPrompt;
  readonly tokensEstimate: number;
  /** What the protocol has a place for: who asks. */
  readonly labels: Readonly<Record<string, string>>;
}

interface Kind {
  /** Characters of the prompt. @throws SluiceError when it is missing. */
  readonly promptChars: (body: Body) => number;
  readonly maxTokens: (body: Body) => number | undefined;
  /** Whether the protocol streams unless told otherwise. */
  readonly streamsByDefault: boolean;
}

const openaiMax = (body: Body) => positive(body.max_completion_tokens ?? body.max_tokens);
const ollamaMax = (body: Body) => positive(asObject(body.options)?.num_predict);
const noTokens = () => 0;
const embeds = { maxTokens: noTokens, streamsByDefault: false };

const kinds: Readonly<Record<string, Kind>> = {
  '/v1/chat/completions': { promptChars: chat, maxTokens: openaiMax, streamsByDefault: false },
  '/v1/completions': {
    promptChars: (body) => texts(body, 'prompt'),
    maxTokens: openaiMax,
    streamsByDefault: false,
  },
  '/v1/embeddings': { ...embeds, promptChars: (body) => texts(body, 'input') },
  '/api/generate': {
    promptChars: (body) => texts(body, 'prompt'),
    maxTokens: ollamaMax,
    streamsByDefault: true,
  },
  '/api/chat': { promptChars: chat, maxTokens: ollamaMax, streamsByDefault: true },
  '/api/embed': { ...embeds, promptChars: (body) => texts(body, 'input') },
  '/api/embeddings': { ...embeds, promptChars: (body) => texts(body, 'prompt') },
  '/infer': {
    promptChars: (body) => texts(body, 'text'),
    maxTokens: () => undefined,
    streamsByDefault: false,
  },
};

/** Levels of lists and objects in a body; deeper ones overflow the stack here or at the replica. */
const mostLevels = 100;

/** A body as JSON in UTF-8. @throws SluiceError invalid_request, without quoting it */
export function parseBody(bytes: Buffer): JsonBody {
  let text: string;
  let body: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    body = JSON.parse(text);
  } catch (cause) {
    throw new SluiceError('invalid_request', 'the body is not valid JSON', {
      param: 'body',
      cause,
    });
  }
  if (isDeeper(body)) throw invalid('body', `has more than ${mostLevels} levels`);
  return { value: body, text };
}

export function isDeeper(value: unknown, levels = mostLevels): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeper(inner, levels - 1));
}

/** Pairs that OpenAI takes in `metadata`. */
const metadataPairs = 16;

/** Paths of prompts. */
export const promptPaths: readonly string[] = Object.keys(kinds);

/**
 * Reads the body of a prompt for one of {@link promptPaths}. `streams`: whether one that does not say
 * gets a stream; as its protocol does when absent. @throws SluiceError invalid_request
 */
export function readPrompt(
  path: unknown,
  given: JsonBody | undefined,
  config: Pick<Config, 'defaultModel' | 'limits'>,
  streams?: boolean,
): ParsedPrompt {
  const kind = typeof path === 'string' && Object.hasOwn(kinds, path) ? kinds[path] : undefined;
  if (typeof path !== 'string' || !kind) {
    throw invalid('path', `must be one of ${promptPaths.join(', ')}`);
  }
  const body = asObject(given?.value);
  if (!given || !body) throw invalid('body', 'must be a JSON object');
  const model = body.model ?? config.defaultModel;
  const stream = body.stream ?? streams ?? kind.streamsByDefault;
  if (typeof model !== 'string' || model === '') throw invalid('model', 'must be a text');
  if (typeof stream !== 'boolean') throw invalid('stream', 'must be true or false');
  return {
    client: {
      path,
      body: path === '/infer' ? JSON.stringify({ text: body.text }) : given.text,
      model,
      stream: stream && kind.maxTokens !== noTokens,
    },
    labels: path.startsWith('/v1/') ? openaiLabels(body, config.limits) : {},
    tokensEstimate: estimateTokens({
      promptChars: kind.promptChars(body),
      maxTokens: kind.maxTokens(body),
    }),
  };
}

/**
 * OpenAI's `user`, or the newer `safety_identifier`, is who asks; `metadata` holds what else is to be
 * said of a request. What is no text, or too long for a label, is no label.
 */
function openaiLabels(body: Body, limits: Config['limits']): Record<string, string> {
  const metadata = Object.entries(asObject(body.metadata) ?? {}).slice(0, metadataPairs);
  const labels: Record<string, string> = {};
  for (const [name, value] of [...metadata, ['user_id', body.user ?? body.safety_identifier]]) {
    if (typeof name === 'string' && typeof value === 'string' && isLabel(name, value, limits)) {
      labels[name] = value;
    }
  }
  return labels;
}

function isLabel(name: string, value: string, limits: Config['limits']): boolean {
  try {
    validateLabels({ [name]: value }, limits);
    return true;
  } catch {
    return false;
  }
}

export function asObject(value: unknown): Body | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Body)
    : undefined;
}

/** Characters of `messages`, text parts included. */
function chat(body: Body): number {
  const { messages } = body;
  if (!Array.isArray(messages) || messages.length === 0) {
    throw invalid('messages', 'must be a list with at least one message');
  }
  let chars = 0;
  for (const [index, message] of messages.entries()) {
    const { role, content } = asObject(message) ?? {};
    if (typeof role !== 'string') throw invalid(`messages[${index}].role`, 'must be a text');
    if (typeof content === 'string') chars += content.length;
    for (const part of Array.isArray(content) ? content : []) {
      const { text } = asObject(part) ?? {};
      if (typeof text === 'string') chars += text.length;
    }
  }
  return chars;
}

/** Characters of a text or a list; token ids in a list count as four characters each. */
function texts(body: Body, field: string): number {
  const value = body[field];
  if (typeof value === 'string' && value !== '') return value.length;
  if (Array.isArray(value) && value.length > 0) {
    let chars = 0;
    for (const part of value.flat()) chars += typeof part === 'string' ? part.length : 4;
    return chars;
  }
  throw invalid(field, 'must be a text that is not empty');
}

/** A maximum of tokens for the estimate; the replica judges what we cannot use. */
function positive(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isInteger(value) && value > 0
    ? Math.min(value, 10_000_000)
    : undefined;
}

/** @throws SluiceError at the first field of `fields` that `what` does not have. */
export function checkFields(
  fields: Readonly<Record<string, unknown>>,
  what: string,
  known: readonly string[],
): void {
  const unknown = Object.keys(fields).find((field) => !known.includes(field));
  if (unknown === undefined) return;
  throw invalid(unknown, `is not a field of ${what}; known: ${known.join(', ')}`);
}

/** What is wrong with a field of a body. */
export function invalid(param: string, right: string): SluiceError {
  return new SluiceError('invalid_request', `${param} ${right}`, { param });
}
