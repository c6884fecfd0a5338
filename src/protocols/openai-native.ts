import { bodyOf, type Fields, objectIn } from './json.ts';
import { asItIs, misspelt, onOneLine, passedOn, wholeAsItIs } from './native.ts';
import { choicesOf, OpenaiProgress, openaiReply, tokensOf } from './openai-reply.ts';
import type { ClientPrompt, Exchange, StreamReader, Target } from './types.ts';

/**
 * OpenAI's protocol on both sides (https://platform.openai.com/docs/api-reference): all is passed
 * on as it came. A stream is asked for its usage, which settles what the prompt cost; a client that
 * did not ask for it does not get it.
 */
export function openaiNative(prompt: ClientPrompt, target: Target): Exchange {
  const body = bodyOf(prompt.body);
  const streams = prompt.stream && prompt.path !== '/v1/embeddings';
  const hidesUsage = objectIn(body, 'stream_options')?.include_usage !== true;
  const changes = {
    ...(target.protocol === 'ollama' ? misspelt(body, ['model', 'stream', 'stream_options']) : {}),
    ...agreed(body, target.model ?? prompt.model, streams),
    ...streamOptions(body, streams, hidesUsage),
  };
  return {
    request: passedOn(prompt.path, prompt.body, changes),
    replyFraming: streams ? 'sse' : 'whole',
    whole: (reply) => ({ ...asItIs(reply), tokens: tokensOfWhole(reply.body) }),
    refusal: asItIs,
    reader: () => (streams ? new EventsAsTheyAre(hidesUsage) : wholeAsItIs(tokensOfWhole)),
  };
}

function agreed(body: Fields, model: string, streams: boolean): Fields {
  return {
    ...(body.model === model ? {} : { model }),
    ...((body.stream ?? false) === streams ? {} : { stream: streams }),
  };
}

/** Belong to a stream; without one OpenAI's servers refuse them. */
function streamOptions(body: Fields, streams: boolean, hidesUsage: boolean): Fields {
  const theirs = body.stream_options ?? undefined;
  if (!streams) return theirs === undefined ? {} : { stream_options: undefined };
  if (!hidesUsage) return {};
  return { stream_options: { ...objectIn(body, 'stream_options'), include_usage: true } };
}

function tokensOfWhole(body: string): number | undefined {
  return tokensOf(openaiReply(body));
}

class EventsAsTheyAre implements StreamReader {
  readonly #hidesUsage: boolean;
  readonly #progress = new OpenaiProgress();

  constructor(hidesUsage: boolean) {
    this.#hidesUsage = hidesUsage;
  }

  next(data: string): readonly string[] {
    // Nothing can follow the end; OpenAI's own clients do not look at it either.
    if (this.#progress.isDone) return [];
    const chunk = this.#progress.read(data);
    if (!chunk || (this.#hidesUsage && isUsageAlone(chunk))) return [];
    return [onOneLine(data)];
  }

  end(): readonly string[] {
    this.#progress.mustBeComplete();
    return [];
  }

  get isDone(): boolean {
    return this.#progress.isDone;
  }

  get tokens(): number | undefined {
    return this.#progress.tokens;
  }
}

/** The chunk that `include_usage` adds. */
function isUsageAlone(chunk: Fields): boolean {
  return Boolean(chunk.usage) && choicesOf(chunk).length === 0;
}
