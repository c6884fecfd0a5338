import { refusalFor } from './refusals.ts';
import {
  type Exchange,
  MalformedReply,
  type Protocol,
  type ReplicaRequest,
  type Reply,
} from './types.ts';
import { WholeReader } from './whole-reader.ts';

/** How an answer that is text alone is told to a client. */
export interface TextVoice {
  /** JSON text of a whole reply. */
  whole(text: string): string;
  /** JSON texts of a stream's events. */
  events(text: string): readonly string[];
}

/**
 * A replica of the Ray Serve pattern: `GET /infer?text=...` answers with the text alone, once all of
 * it is there. It says neither how it ended nor what it cost.
 */
export function rayExchange(text: string, front: Protocol, voice: TextVoice): Exchange {
  return {
    request: inferRequest(text),
    replyFraming: 'whole',
    whole: (reply) => ({
      contentType: 'application/json',
      body: voice.whole(textOfReply(reply)),
      tokens: undefined,
    }),
    refusal: refusalFor(front),
    reader: (contentType = '') =>
      new WholeReader((body) => ({ events: voice.events(textOfReply({ contentType, body })) })),
  };
}

/** Half a surrogate pair has no place in a URL; it becomes U+FFFD. */
export function inferRequest(text: string): ReplicaRequest {
  return { method: 'GET', path: `/infer?text=${encodeURIComponent(text.toWellFormed())}` };
}

/** Plain text as it is; FastAPI makes a JSON string of a text that a handler returns. */
function textOfReply({ contentType, body }: Reply): string {
  const [type = ''] = contentType.toLowerCase().split(';');
  const kind = type.trim();
  if (kind === 'text/plain') return body;
  const text = jsonString(body);
  if (text !== undefined && (kind === '' || kind === 'application/json')) return text;
  if (kind === '') return body;
  throw new MalformedReply('the replica answered neither plain text nor a JSON string');
}

function jsonString(body: string): string | undefined {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}
