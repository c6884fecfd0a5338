import { unwrapped, wrapped } from './conversation.ts';
import { refuseOthers, requiredText } from './fields.ts';
import { bodyOf, type Fields, objectIn, textIn } from './json.ts';
import { asItIs, saidBy } from './native.ts';
import { tokensOf as ollamaTokens } from './ollama-native.ts';
import { choicesOf, openaiReply, tokensOf } from './openai-reply.ts';
import { inferRequest } from './ray.ts';
import { plainText, refusalFor } from './refusals.ts';
import {
  type ClientPrompt,
  type Exchange,
  MalformedReply,
  type Protocol,
  type StreamReader,
  type Target,
  type WholeReply,
} from './types.ts';

/**
 * A client of `/infer`, which knows a text and nothing else: at any replica. The answer is plain
 * text, in one piece. @throws SluiceError invalid_request
 */
export function inferExchange(prompt: ClientPrompt, target: Target): Exchange {
  const body = bodyOf(prompt.body);
  refuseOthers(body, { known: new Set(['text']) }, target.protocol);
  const text = requiredText(body, 'text');
  return exchanges[target.protocol](text, target.model ?? prompt.model, target.template);
}

const exchanges: Record<
  Protocol,
  (text: string, model: string, template: Target['template']) => Exchange
> = {
  ray: (text, _, template) => ({
    request: inferRequest(wrapped(text, template)),
    replyFraming: 'whole',
    whole: ({ contentType, body }) => ({
      contentType: contentType || plainText,
      body,
      tokens: undefined,
    }),
    refusal: asItIs,
    reader: neverStreams,
  }),
  openai: (text, model) => {
    const messages = [{ role: 'user', content: unwrapped(text) }];
    return asked('/v1/chat/completions', { model, messages }, openaiText);
  },
  ollama: (text, model) =>
    asked('/api/generate', { model, prompt: unwrapped(text), stream: false }, ollamaText),
};

function asked(path: string, body: Fields, tell: (body: string) => Told): Exchange {
  return {
    request: { method: 'POST', path, body: JSON.stringify(body) },
    replyFraming: 'whole',
    whole(reply): WholeReply {
      const { text, tokens } = tell(reply.body);
      if (text === undefined) throw new MalformedReply('the replica answered without a text');
      return { contentType: plainText, body: text, tokens };
    },
    refusal: refusalFor('ray'),
    reader: neverStreams,
  };
}

interface Told {
  readonly text: string | undefined;
  readonly tokens: number | undefined;
}

function openaiText(body: string): Told {
  const reply = openaiReply(body);
  const message = objectIn(choicesOf(reply)[0] ?? {}, 'message');
  // Null where the answer is empty.
  const text = message?.content === null ? '' : textIn(message, 'content');
  return { text, tokens: tokensOf(reply) };
}

function ollamaText(body: string): Told {
  const reply = saidBy(body);
  return { text: textIn(reply, 'response'), tokens: ollamaTokens(reply) };
}

function neverStreams(): StreamReader {
  throw new Error('/infer has no streams');
}
