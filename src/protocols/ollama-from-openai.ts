import { countIn, type Fields, isObject, objectIn, textIn } from './json.ts';
import { ollamaToOpenai } from './ollama-to-openai.ts';
import { type Ending, OllamaVoice, type Said } from './ollama-voice.ts';
import { choicesOf, OpenaiProgress, openaiReply, tokensOf } from './openai-reply.ts';
import { refusalFor } from './refusals.ts';
import { ollamaCalls, ToolCallPieces } from './tool-calls.ts';
import {
  type ClientPrompt,
  type Exchange,
  MalformedReply,
  type StreamReader,
  type Target,
} from './types.ts';
import { WholeReader } from './whole-reader.ts';

/** A client of Ollama's API at a replica that speaks OpenAI's. @throws SluiceError invalid_request */
export function ollamaFromOpenai(prompt: ClientPrompt, target: Target): Exchange {
  const request = ollamaToOpenai(prompt, target);
  const voice = new OllamaVoice(prompt.path, prompt.model);
  const tell =
    request.path === '/v1/embeddings' ? embeddingTeller(prompt.path, voice) : answerTeller(voice);
  const streams = prompt.stream && request.path !== '/v1/embeddings';
  const wholly = (body: string) => {
    const reply = openaiReply(body);
    return { body: tell(reply), tokens: tokensOf(reply) };
  };
  return {
    request,
    replyFraming: streams ? 'sse' : 'whole',
    whole: ({ body }) => ({ contentType: 'application/json', ...wholly(body) }),
    refusal: refusalFor('ollama'),
    reader: () => (streams ? new AnswerReader(voice) : new WholeReader(asOneEvent(wholly))),
  };
}

function asOneEvent(wholly: (body: string) => { body: string; tokens: number | undefined }) {
  return (given: string) => {
    const { body, tokens } = wholly(given);
    return { events: [body], tokens };
  };
}

function answerTeller(voice: OllamaVoice): (reply: Fields) => string {
  return (reply) => {
    const [choice] = choicesOf(reply);
    if (!choice) throw new MalformedReply('the replica answered without a choice');
    const message = objectIn(choice, 'message');
    const toolCalls = ollamaCalls(message?.tool_calls);
    const said = { ...saidIn(message ?? choice), toolCalls };
    return voice.last(said, endingOf(choice.finish_reason, reply));
  };
}

function embeddingTeller(path: string, voice: OllamaVoice): (reply: Fields) => string {
  return (reply) => {
    const data = Array.isArray(reply.data) ? reply.data.filter(isObject) : [];
    const vectors = data
      .toSorted((one, other) => Number(one.index ?? 0) - Number(other.index ?? 0))
      .map(({ embedding }) => embedding);
    if (vectors.length === 0 || !vectors.every(Array.isArray)) {
      throw new MalformedReply('the replica answered without embeddings');
    }
    if (path === '/api/embeddings') return JSON.stringify({ embedding: vectors[0] });
    return voice.embeddings(vectors, countIn(objectIn(reply, 'usage'), 'prompt_tokens'));
  };
}

/** What a message, a delta or a choice of a completion says. Reasoning has had two names in vLLM. */
function saidIn(part: Fields): Said {
  return {
    content: textIn(part, 'content') ?? textIn(part, 'text') ?? '',
    thinking: textIn(part, 'reasoning_content') || textIn(part, 'reasoning') || undefined,
  };
}

function endingOf(finishReason: unknown, reply: Fields | undefined): Ending {
  const usage = reply && objectIn(reply, 'usage');
  return {
    reason: typeof finishReason === 'string' ? (reasons.get(finishReason) ?? finishReason) : 'stop',
    promptTokens: countIn(usage, 'prompt_tokens'),
    answerTokens: countIn(usage, 'completion_tokens'),
  };
}

/** Ollama stops when it calls a tool, too. */
const reasons = new Map([
  ['tool_calls', 'stop'],
  ['function_call', 'stop'],
]);

/** Reads the chunks of a stream: text goes on at once, tool calls when they are whole. */
class AnswerReader implements StreamReader {
  readonly #voice: OllamaVoice;
  readonly #progress = new OpenaiProgress();
  readonly #calls = new ToolCallPieces();
  #finishReason: unknown;
  /** The chunk that had the usage. */
  #usage: Fields | undefined;
  isDone = false;

  constructor(voice: OllamaVoice) {
    this.#voice = voice;
  }

  next(data: string): readonly string[] {
    if (this.isDone) return [];
    const chunk = this.#progress.read(data);
    if (!chunk) return this.#last();
    this.#voice.heard();
    if (chunk.usage) this.#usage = chunk;
    return choicesOf(chunk)
      .slice(0, 1)
      .flatMap((choice) => this.#choice(choice));
  }

  end(): readonly string[] {
    if (this.isDone) return [];
    this.#progress.mustBeComplete();
    return this.#last();
  }

  get tokens(): number | undefined {
    return this.#progress.tokens;
  }

  #choice(choice: Fields): string[] {
    const delta = objectIn(choice, 'delta') ?? choice;
    const said = saidIn(delta);
    const events = said.content === '' && !said.thinking ? [] : [this.#voice.piece(said)];
    this.#calls.add(delta.tool_calls);
    if (choice.finish_reason === undefined || choice.finish_reason === null) return events;
    this.#finishReason = choice.finish_reason;
    return [...events, ...this.#gatheredCalls()];
  }

  #gatheredCalls(): string[] {
    const toolCalls = ollamaCalls(this.#calls.take());
    return toolCalls ? [this.#voice.piece({ content: '', toolCalls })] : [];
  }

  #last(): string[] {
    this.isDone = true;
    const ending = endingOf(this.#finishReason, this.#usage);
    return [...this.#gatheredCalls(), this.#voice.last({ content: '' }, ending)];
  }
}
