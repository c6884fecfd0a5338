import { request as httpRequest } from 'undici';
import { Agents, type ReplicaCredentials } from './agents.ts';
import { codeOf, ReplicaFailure } from './failure.ts';

export interface ReplicaCall {
  /** Base URL of the replica. */
  readonly url: string;
  readonly request: {
    readonly method: 'GET' | 'POST';
    readonly path: string;
    /** JSON text. */
    readonly body?: string | undefined;
  };
  /** Of a prompt; sent along, so that the replica's log can be read beside ours. */
  readonly prompt?: { readonly id: string; readonly attempt: number } | undefined;
  /** The name of what the replica is shown. */
  readonly credentials?: string | undefined;
  /** Ends the call and its reply. */
  readonly signal: AbortSignal;
}

/** The beginning of a reply; its bytes come as they are read, and no faster. */
export interface ReplicaReply {
  readonly httpStatus: number;
  readonly contentType: string;
  readonly bytes: AsyncIterable<Uint8Array>;
}

/** Sends prompts to replicas, and shows them who asks. */
export class ReplicaClient {
  readonly #credentials: Readonly<Record<string, ReplicaCredentials>>;
  readonly #agents = new Agents();

  constructor(
    options: { readonly credentials?: Readonly<Record<string, ReplicaCredentials>> } = {},
  ) {
    this.#credentials = options.credentials ?? {};
  }

  /** One call. @throws ReplicaFailure, also for a 5xx, and the signal's reason when that ended it. */
  async call(call: ReplicaCall): Promise<ReplicaReply> {
    const { request, prompt, credentials: name, signal } = call;
    const credentials = name === undefined ? undefined : this.#named(name);
    const response = await httpRequest(urlOf(call.url, request.path), {
      method: request.method,
      dispatcher: this.#agents.for(name, credentials),
      signal,
      headers: {
        ...credentials?.headers,
        ...(credentials?.bearer !== undefined && { authorization: `Bearer ${credentials.bearer}` }),
        ...(prompt && {
          'sluice-request-id': prompt.id,
          'sluice-attempt': String(prompt.attempt),
        }),
        ...(request.body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(request.body === undefined ? {} : { body: request.body }),
    }).catch((error: unknown) => {
      throw failureOf(error, signal, this.#agents.wasSent(error));
    });
    const { statusCode: httpStatus, headers, body } = response;
    if (isFailure(httpStatus)) {
      // Read to its end, so that the connection can be used again; a long or slow one is not worth it.
      const bounds = { limit: 64 * 1024, signal: AbortSignal.timeout(dumpMs) };
      void body.dump(bounds).catch(() => {});
      const message = `the replica answered ${httpStatus}`;
      throw new ReplicaFailure(message, servesNobody.has(httpStatus), undefined, { httpStatus });
    }
    const contentType = [headers['content-type'] ?? 'application/json'].flat()[0] ?? '';
    return { httpStatus, contentType, bytes: readable(body, signal) };
  }

  async stop(): Promise<void> {
    await this.#agents.stop();
  }

  #named(name: string): ReplicaCredentials {
    const credentials = Object.hasOwn(this.#credentials, name) && this.#credentials[name];
    if (credentials) return credentials;
    const message = `this process has no credentials named ${name}`;
    throw new ReplicaFailure(message, true, undefined, { wasSent: false });
  }
}

/** A whole reply as text. @throws ReplicaFailure when it is longer than `limit` bytes, or no UTF-8 */
export async function readText(reply: ReplicaReply, limit: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of reply.bytes) {
    size += chunk.length;
    if (size > limit) throw tooLarge(limit);
    chunks.push(chunk);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
  } catch (error) {
    throw new ReplicaFailure('the answer of the replica is not UTF-8', false, error);
  }
}

export function tooLarge(limit: number): ReplicaFailure {
  return new ReplicaFailure(`the replica failed: its answer is larger than ${limit} bytes`, false);
}

/** How long the rest of a failed answer may take to come, ms. */
const dumpMs = 1_000;
/** An overloaded server, or a gateway before it, says so; or our credentials are not good enough. */
const servesNobody: ReadonlySet<number> = new Set([401, 407, 429, 502, 503, 504]);
/** What a replica says to us, and not to the client: that we may not ask this, or were too slow. */
const oursToMend: ReadonlySet<number> = new Set([403, 408]);

/** Anything but an answer, or the replica's no to this prompt. */
function isFailure(status: number): boolean {
  const isNeither = status < 200 || (status >= 300 && status < 400) || status >= 500;
  return isNeither || servesNobody.has(status) || oursToMend.has(status);
}

/** A base URL may have a path of its own, as Ray Serve's route prefix. */
function urlOf(base: string, path: string): URL {
  return new URL(base.replace(/\/+$/, '') + path);
}

async function* readable(
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  try {
    yield* body;
  } catch (error) {
    throw failureOf(error, signal, true);
  }
}

function failureOf(error: unknown, signal: AbortSignal, wasSent: boolean): unknown {
  if (signal.aborted) return signal.reason;
  const message = `the replica failed: ${reasonOf(error)}`;
  return new ReplicaFailure(message, true, error, { wasSent });
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return codeOf(error) ?? (error.message || error.name);
}
