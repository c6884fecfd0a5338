/** What the three protocols have in common, and the checks of a body that they share. */

import { SluiceError } from '../errors.ts';
import type { Timing } from './engine.ts';
import type { Answer } from './text.ts';

/** A request as the protocols see it: parsed, or not there. */
export interface Incoming {
  readonly query: URLSearchParams;
  /** The JSON body of a POST; undefined for a GET. */
  readonly body: unknown;
  /** The body as it came. */
  readonly text: string | undefined;
}

/** What a replica serves. */
export interface Catalog {
  /** Every name that is accepted, the first is the model's own. */
  readonly models: readonly string[];
  /** When the replica started, which stands for when the model was made. */
  readonly since: Date;
  /** Length of an embedding when the caller does not say. */
  readonly embeddingDimensions: number;
}

/** One prompt, as asked in its protocol. */
export interface Call {
  /** What the answer follows from: the same text, the same answer. */
  readonly input: string;
  readonly promptTokens: number;
  /** An embedding reads the prompt and writes no tokens. */
  readonly kind: 'answer' | 'embedding';
  /** The caller's limit on the answer's tokens, at least 1. */
  readonly maxTokens?: number | undefined;
  /** What the answer's text is put between, so that it is JSON; absent: plain text. */
  readonly frame?: Frame | undefined;
  readonly stream: boolean;
  /** How to write this answer in the protocol's words. */
  render(answer: Answer): Rendering;
}

/** The beginning and the end of a JSON object that has one text. */
export type Frame = readonly [string, string];

export const jsonFrame: Frame = ['{"answer": "', '"}'];
/** The arguments of a tool call. */
export const toolFrame: Frame = ['{"echo": "', '"}'];

/** One answer in the words of its protocol. */
export interface Rendering {
  whole(timing: Timing): Page;
  /** Absent where the protocol cannot stream this. */
  readonly stream?: {
    readonly contentType: string;
    chunk(text: string, isFirst: boolean): string;
    /** What follows the last chunk. */
    last(timing: Timing): string;
    /** A message that is no JSON. */
    readonly broken: string;
    /** How a stream says that it failed. */
    readonly error: string;
  };
}

/** A body that is ready to send. */
export interface Page {
  readonly contentType: string;
  readonly body: string;
}

/** Routes are named `METHOD /path`. */
export interface Protocol {
  readonly name: 'ollama' | 'openai' | 'ray';
  /** Whether this protocol, and its shape of errors, is the one for a path. */
  owns(path: string): boolean;
  readonly prompts: Readonly<Record<string, (incoming: Incoming, catalog: Catalog) => Call>>;
  readonly pages: Readonly<Record<string, (incoming: Incoming, catalog: Catalog) => Page>>;
  error(error: SluiceError): Page;
}

export const jsonType = 'application/json; charset=utf-8';

export function jsonPage(value: unknown): Page {
  return { contentType: jsonType, body: JSON.stringify(value) };
}

export function invalid(message: string, param?: string): SluiceError {
  return new SluiceError('invalid_request', message, { param });
}

/** The body as an object, or `invalid_request`. */
export function objectOf(body: unknown): Record<string, unknown> {
  if (isObject(body)) return body;
  throw invalid('the body must be a JSON object');
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A non-empty text field, or `invalid_request` that names it. */
export function textOf(fields: Record<string, unknown>, name: string): string {
  const value = fields[name];
  if (typeof value === 'string' && value !== '') return value;
  throw invalid(`${name} is required and must be a non-empty string`, name);
}

/** `input` of an embedding: one text or several. */
export function textsOf(fields: Record<string, unknown>, name: string): string[] {
  const value = fields[name];
  const texts = Array.isArray(value) ? value : [value];
  const isText = (text: unknown): text is string => typeof text === 'string' && text !== '';
  if (texts.length > 0 && texts.length <= 2048 && texts.every(isText)) return texts;
  throw invalid(`${name} is required and must be a string or an array of strings`, name);
}

export function flagOf(fields: Record<string, unknown>, name: string, absent: boolean): boolean {
  const value = fields[name] ?? absent;
  if (typeof value === 'boolean') return value;
  throw invalid(`${name} must be true or false`, name);
}

export function integerOf(fields: Record<string, unknown>, name: string): number | undefined {
  const value = fields[name] ?? undefined;
  if (value === undefined) return undefined;
  if (typeof value === 'number' && Number.isSafeInteger(value)) return value;
  throw invalid(`${name} must be an integer`, name);
}

/** The name of the tool that the answer is a call of: the first, whichever is asked for, if any. */
export function toolOf(fields: Record<string, unknown>): string | undefined {
  const { tools, tool_choice: choice } = fields;
  if (!Array.isArray(tools) || tools.length === 0 || choice === 'none') return undefined;
  const [tool] = tools;
  const name = isObject(tool) && isObject(tool.function) ? tool.function.name : undefined;
  if (typeof name === 'string' && name !== '') return name;
  throw invalid('tools[0] must have a function with a name', 'tools');
}

/** A conversation as one text, role by role; content may be a text or OpenAI's text parts. */
export function conversationOf(fields: Record<string, unknown>): string {
  const messages = fields.messages;
  if (!Array.isArray(messages) || messages.length === 0) {
    throw invalid('messages is required and must be a non-empty array', 'messages');
  }
  return messages.map((message, index) => messageText(message, `messages[${index}]`)).join('\n');
}

function messageText(message: unknown, path: string): string {
  if (!isObject(message) || typeof message.role !== 'string') {
    throw invalid(`${path} must be an object with a role`, path);
  }
  return `${message.role}: ${contentText(message.content ?? '', `${path}.content`)}`;
}

function contentText(content: unknown, path: string): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) throw invalid(`${path} must be a string or an array`, path);
  return content
    .map((part) => (isObject(part) && typeof part.text === 'string' ? part.text : ''))
    .join('');
}
