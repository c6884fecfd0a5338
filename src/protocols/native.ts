import { type Fields, parseExactly, replyOf } from './json.ts';
import { ReplicaError, type ReplicaRequest, type Reply, type StreamReader } from './types.ts';
import { WholeReader } from './whole-reader.ts';

/** What passing on in one protocol is made of: the body with a few fields changed, and its reply. */

/**
 * The request of a prompt that goes on as it came, but for the fields that have to change; one that
 * becomes undefined is left out. Without any its text is the client's own.
 */
export function passedOn(path: string, body: string, changes: Fields): ReplicaRequest {
  return { method: 'POST', path, body: changed(body, changes) };
}

function changed(text: string, changes: Fields): string {
  if (Object.keys(changes).length === 0) return text;
  return JSON.stringify({ ...(parseExactly(text) as Fields), ...changes });
}

/**
 * Names in other cases than the protocol's, to be left out: Ollama is written in Go, which reads
 * names without regard to case (https://pkg.go.dev/encoding/json#Unmarshal), so that a `Stream`
 * would overrule the `stream` that was agreed on.
 */
export function misspelt(fields: Fields, names: readonly string[]): Fields {
  const found = Object.keys(fields).filter(
    (key) => !names.includes(key) && names.some((name) => isSameInGo(key, name)),
  );
  return Object.fromEntries(found.map((key) => [key, undefined]));
}

/** By upper case, as `ſ` counts as an s. */
function isSameInGo(key: string, name: string): boolean {
  return key.length === name.length && key.toUpperCase() === name.toUpperCase();
}

/** What a replica of the client's own protocol says needs no translation. */
export function asItIs({ contentType, body }: Reply): Reply {
  return { contentType, body };
}

/** Reads a reply in one piece, which stays as it is, for a client that gets a stream. */
export function wholeAsItIs(tokensOf: (body: string) => number | undefined): StreamReader {
  return new WholeReader((body) => ({ events: [onOneLine(body)], tokens: tokensOf(body) }));
}

/** An object that a replica sent, unless it reports an error. @throws MalformedReply, ReplicaError */
export function saidBy(text: string, parse?: (text: string) => unknown): Fields {
  const said = replyOf(text, parse);
  if (said.error) throw new ReplicaError(messageIn(said) ?? 'the replica reported an error');
  return said;
}

/** Where the protocols of replicas, and FastAPI, put what went wrong. */
export function messageIn(reply: Fields): string | undefined {
  const { error, message, detail } = reply;
  const within = typeof error === 'object' && error !== null ? (error as Fields).message : error;
  return [within, message, detail].find((text) => typeof text === 'string' && text !== '') as
    | string
    | undefined;
}

/** JSON has line breaks only between its words; server-sent events must not have them. */
export function onOneLine(json: string): string {
  return /[\r\n]/.test(json) ? json.replace(/[\r\n]+/g, ' ') : json;
}
