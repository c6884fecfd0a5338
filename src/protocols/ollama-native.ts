import { bodyOf, countIn, type Fields } from './json.ts';
import { asItIs, misspelt, passedOn, saidBy, wholeAsItIs } from './native.ts';
import {
  type ClientPrompt,
  type Exchange,
  MalformedReply,
  type StreamReader,
  type Target,
} from './types.ts';

/** Ollama's protocol on both sides (https://docs.ollama.com/api): all is passed on as it came. */
export function ollamaNative(prompt: ClientPrompt, target: Target): Exchange {
  const body = bodyOf(prompt.body);
  const canStream = prompt.path === '/api/generate' || prompt.path === '/api/chat';
  const streams = prompt.stream && canStream;
  const model = target.model ?? prompt.model;
  const changes = {
    ...misspelt(body, ['model', 'stream']),
    ...(body.model === model ? {} : { model }),
    // Ollama streams unless told otherwise.
    ...((body.stream ?? canStream) === streams ? {} : { stream: streams }),
  };
  return {
    request: passedOn(prompt.path, prompt.body, changes),
    replyFraming: streams ? 'ndjson' : 'whole',
    whole: (reply) => ({ ...asItIs(reply), tokens: tokensOfWhole(reply.body) }),
    refusal: asItIs,
    reader: () => (streams ? new LinesAsTheyAre() : wholeAsItIs(tokensOfWhole)),
  };
}

function tokensOfWhole(body: string): number | undefined {
  return tokensOf(saidBy(body));
}

class LinesAsTheyAre implements StreamReader {
  isDone = false;
  #tokens: number | undefined;

  next(data: string): readonly string[] {
    if (this.isDone) return [];
    const line = saidBy(data);
    if (line.done === true) {
      this.isDone = true;
      this.#tokens = tokensOf(line);
    }
    return [data];
  }

  end(): readonly string[] {
    if (!this.isDone) throw new MalformedReply('the stream broke off before its end');
    return [];
  }

  get tokens(): number | undefined {
    return this.#tokens;
  }
}

/** Prompt and answer together; a reply to `/api/embed` counts only its prompt. */
export function tokensOf(reply: Fields): number | undefined {
  const prompt = countIn(reply, 'prompt_eval_count');
  const answer = countIn(reply, 'eval_count');
  return prompt === undefined && answer === undefined ? undefined : (prompt ?? 0) + (answer ?? 0);
}
