import { codeOf, ReplicaFailure } from './failure.ts';
import type { ReplicaClient, ReplicaReply } from './replica.ts';

/** What a replica is asked to find out whether it is ready, as its record in Redis has it. */
export interface Probe {
  readonly path: string;
  /** JSON text: POST with it, GET without. */
  readonly post_data?: string | undefined;
  /** For the whole answer. */
  readonly timeout_ms: number;
}

/** `reason` is short and never what the replica said, which may quote a prompt. */
export type ProbeResult = { readonly ok: true } | { readonly ok: false; readonly reason: string };

/** More of an answer is not read, bytes. */
const answerBytes = 1024 * 1024;

/**
 * Whether the replica answers 200, all of it in time, and to a POST with something that reports no
 * error: engines answer 200 to a prompt that failed. Never throws; `signal` gives it up.
 */
export async function probe(
  client: ReplicaClient,
  target: { readonly url: string; readonly credentials?: string | undefined },
  how: Probe,
  signal?: AbortSignal,
): Promise<ProbeResult> {
  const over = new AbortController();
  const end = (reason: string) => over.abort(new ReplicaFailure(reason, true));
  const giveUp = () => end('given up');
  const timer = setTimeout(() => end(`no answer within ${how.timeout_ms} ms`), how.timeout_ms);
  signal?.addEventListener('abort', giveUp);
  if (signal?.aborted) giveUp();
  try {
    const reply = await client.call({
      url: target.url,
      credentials: target.credentials,
      request: { path: how.path, ...methodOf(how) },
      signal: over.signal,
    });
    const problem = await problemIn(reply, how);
    // What is left of the answer is not waited for.
    if (problem !== undefined) end(problem);
    return problem === undefined ? { ok: true } : { ok: false, reason: problem };
  } catch (error) {
    return { ok: false, reason: reasonOf(over.signal.aborted ? over.signal.reason : error) };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', giveUp);
  }
}

function methodOf({ post_data: body }: Probe): { method: 'GET' | 'POST'; body?: string } {
  return body === undefined ? { method: 'GET' } : { method: 'POST', body };
}

async function problemIn(reply: ReplicaReply, how: Probe): Promise<string | undefined> {
  if (reply.httpStatus !== 200) return `answered ${reply.httpStatus}`;
  const text = await beginningOf(reply.bytes);
  if (how.post_data === undefined) return undefined;
  if (text === '') return 'answered nothing';
  return reportsError(text) ? 'reported an error' : undefined;
}

/** All of an answer that is not too long. */
async function beginningOf(bytes: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of bytes) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > answerBytes) break;
  }
  return Buffer.concat(chunks).toString();
}

/** OpenAI's Responses have `error: null` when there is none. */
function reportsError(text: string): boolean {
  try {
    const said: unknown = JSON.parse(text);
    if (typeof said !== 'object' || said === null || !Object.hasOwn(said, 'error')) return false;
    return 'error' in said && said.error !== null && said.error !== false;
  } catch {
    return false;
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof ReplicaFailure)) return nameOf(error);
  if (error.httpStatus !== undefined) return `answered ${error.httpStatus}`;
  return error.cause === undefined ? error.message : nameOf(error.cause);
}

/** Not the message of an error from elsewhere: nobody knows what that quotes. */
function nameOf(error: unknown): string {
  return codeOf(error) ?? (error instanceof Error ? error.name : 'failed');
}
