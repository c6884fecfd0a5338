import { Agent, request as httpRequest } from 'undici';
import { tokensOfReply } from './protocols.ts';

/** What a replica is sent. */
export interface Upstream {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  /** JSON text, sent as it came. */
  readonly body?: string | undefined;
}

export interface ReplicaCall {
  /** Base URL of the replica. */
  readonly url: string;
  readonly upstream: Upstream;
  /** Sent along, so that the replica's log can be read beside ours. */
  readonly requestId: string;
  readonly attempt: number;
  /** Ends the call; its reason says why. */
  readonly signal: AbortSignal;
  /** Largest answer that is taken, bytes. */
  readonly answerBytes: number;
}

export type ReplicaResult =
  | {
      readonly status: 'answered';
      readonly httpStatus: number;
      readonly contentType: string;
      readonly body: string;
      readonly tokens: number | undefined;
    }
  /** No answer for the client. `isDown`: it is the replica's state and not this prompt's doing. */
  | { readonly status: 'failed'; readonly message: string; readonly isDown: boolean }
  /** The signal ended it. */
  | { readonly status: 'aborted' };

/** Sends prompts to replicas. The lease bounds a call, so the agent's own timeouts are off. */
export class ReplicaClient {
  readonly #agent = new Agent({ headersTimeout: 0, bodyTimeout: 0, connect: { timeout: 2_000 } });

  /** One attempt. Never throws. 5xx counts as failed; 4xx is the answer. */
  async call(call: ReplicaCall): Promise<ReplicaResult> {
    const { upstream, signal } = call;
    try {
      const response = await httpRequest(urlOf(call.url, upstream.path), {
        method: upstream.method,
        dispatcher: this.#agent,
        signal,
        headers: {
          'sluice-request-id': call.requestId,
          'sluice-attempt': String(call.attempt),
          ...(upstream.body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(upstream.body === undefined ? {} : { body: upstream.body }),
      });
      const body = await readText(response.body, call.answerBytes);
      if (response.statusCode >= 500) {
        const message = `the replica answered ${response.statusCode}`;
        return { status: 'failed', message, isDown: unavailable.has(response.statusCode) };
      }
      const contentType = String(response.headers['content-type'] ?? 'application/json');
      const tokens = tokensOfReply(body);
      return { status: 'answered', httpStatus: response.statusCode, contentType, body, tokens };
    } catch (error) {
      if (signal.aborted) return { status: 'aborted' };
      const message = `the replica failed: ${reasonOf(error)}`;
      return { status: 'failed', message, isDown: !(error instanceof AnswerTooLarge) };
    }
  }

  async stop(): Promise<void> {
    await this.#agent.destroy();
  }
}

/** A gateway or an overloaded server says that it cannot serve anybody now. */
const unavailable: ReadonlySet<number> = new Set([502, 503, 504]);

class AnswerTooLarge extends Error {}

/** A base URL may have a path of its own, as Ray Serve's route prefix. */
function urlOf(base: string, path: string): URL {
  return new URL(base.replace(/\/+$/, '') + path);
}

async function readText(stream: AsyncIterable<Buffer>, limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > limit) throw new AnswerTooLarge(`its answer is larger than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'code' in error ? `${error.code}` : error.message;
}
