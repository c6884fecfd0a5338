/**
 * The life of one prompt in the replica: taken, run on the GPU model, answered, and ended in exactly
 * one way. It ends in the ledger before the last byte is sent, so a client that has its answer
 * never still counts as in flight.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { SluiceError } from '../errors.ts';
import type { Engine } from './engine.ts';
import type { Fault } from './faults.ts';
import { header } from './http.ts';
import type { Entry, Ledger } from './ledger.ts';
import type { Settings } from './options.ts';
import type { Call } from './protocol.ts';
import { type Answer, type AnswerLength, answerTo } from './text.ts';
import { floodText, tokensBefore, Writer } from './writer.ts';

export interface Replica {
  readonly settings: Settings;
  readonly engine: Engine;
  readonly ledger: Ledger;
}

export interface Prompt {
  readonly path: string;
  readonly call: Call;
  /** The fault that hits it. */
  readonly fault: Fault | undefined;
  /** The body as it came; undefined for a GET. */
  readonly text: string | undefined;
}

/**
 * Serve one prompt; returns when it is handed over, not when it is answered. Throws what is to be
 * answered as an error of the protocol.
 */
export function servePrompt(
  replica: Replica,
  prompt: Prompt,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const { settings, ledger } = replica;
  const { call, fault } = prompt;
  const answer = answerFor(prompt, settings.answerTokens);
  const kept = settings.keepBodies ? keptOf(prompt.text, request) : {};
  const entry = { ...entryOf(prompt, answer, request), ...kept };

  switch (fault?.mode) {
    case 'unavailable':
    case 'error':
      ledger.fail(entry);
      throw errorOf(fault);
    case 'hang': {
      const end = ledger.start(entry);
      response.once('close', () => end('aborted', 0));
      return;
    }
    case 'stream_error':
      if (call.stream) break;
      ledger.fail(entry);
      throw errorOf(fault);
    case 'die':
      if (fault.after_tokens !== undefined) break;
      ledger.fail(entry);
      settings.onDie?.();
      response.destroy();
      return;
    default:
  }
  run(replica, prompt, { entry, answer }, response);
}

/** What a request gets that is not answered: an outage, or an internal error. */
export function errorOf(fault: Fault): SluiceError {
  if (fault.mode !== 'unavailable') {
    return new SluiceError('internal', 'a simulated internal error');
  }
  const retryAfterMs = (fault.retry_after_s ?? 1) * 1000;
  return new SluiceError('unavailable', 'a simulated outage', { retryAfterMs });
}

function run(
  replica: Replica,
  { call, fault }: Prompt,
  { entry, answer }: { entry: Entry; answer: Answer },
  response: ServerResponse,
): void {
  const { settings, engine, ledger } = replica;
  const rendering = call.render(answer);
  const writer = new Writer({ response, rendering, answer, streamed: call.stream, fault });
  const answerTokens = tokensToWrite(fault, answer);

  const end = ledger.start(entry);
  const takeBack = engine.run(
    {
      promptTokens: call.promptTokens,
      answerTokens,
      ...(writer.streams ? { groupTokens: settings.streamTokens } : {}),
      ...(fault?.mode === 'slow' ? { slowdown: fault.factor ?? 4 } : {}),
    },
    {
      tokens: (written) => writer.write(written),
      ended(timing) {
        switch (fault?.mode) {
          case 'cut':
          case 'die':
            end('failed', answerTokens);
            writer.write(answerTokens, () => {
              if (fault.mode === 'die') settings.onDie?.();
              response.destroy();
            });
            return;
          case 'stall':
            writer.write(answerTokens);
            return;
          case 'malformed':
            end('failed', answerTokens);
            writer.write(answerTokens);
            writer.garble(timing);
            return;
          case 'stream_error':
            end('failed', answerTokens);
            writer.write(answerTokens);
            writer.fail();
            return;
          default:
            writer.write(answerTokens);
            end('completed', answerTokens);
            writer.finish(timing);
        }
      },
    },
  );
  response.once('close', () => {
    // Without effect after any other end. A stalled answer has left the card with all it was to say.
    end('aborted', takeBack() ?? answerTokens);
  });
}

function answerFor({ call, fault }: Prompt, length: AnswerLength): Answer {
  if (call.kind === 'embedding') return { tokens: [], finishReason: 'stop' };
  const { tokens, finishReason } = answerTo(call.input, length, call.maxTokens);
  const isFlood = fault?.mode === 'flood' && !call.stream;
  const words = isFlood ? tokens.map((_, at) => (at === 0 ? floodText(fault) : '')) : tokens;
  const [opening, closing] = call.frame ?? ['', ''];
  const framed = words.map((word, at) => {
    return `${at === 0 ? opening : ''}${word}${at === words.length - 1 ? closing : ''}`;
  });
  return { tokens: framed, finishReason };
}

/** Tokens that are written on the card: the answer, where it breaks off, or no end of them. */
function tokensToWrite(fault: Fault | undefined, answer: Answer): number {
  switch (fault?.mode) {
    case 'cut':
    case 'die':
    case 'stall':
    case 'malformed':
    case 'stream_error':
      return tokensBefore(fault, answer);
    case 'endless':
      return Number.MAX_SAFE_INTEGER;
    default:
      return answer.tokens.length;
  }
}

/** How much of a body or a query the log keeps, in characters. */
const keptLength = 64 * 1024;

function keptOf(text: string | undefined, request: IncomingMessage): Partial<Entry> {
  const [, query] = /\?(.*)$/.exec(request.url ?? '') ?? [];
  return {
    ...(text === undefined ? {} : { body: text.slice(0, keptLength) }),
    ...(query === undefined ? {} : { query: query.slice(0, keptLength) }),
  };
}

function entryOf({ path, call, fault }: Prompt, answer: Answer, request: IncomingMessage): Entry {
  const attempt = Number(header(request, 'sluice-attempt') ?? Number.NaN);
  return {
    request_id: header(request, 'sluice-request-id')?.slice(0, 256) ?? null,
    attempt: Number.isSafeInteger(attempt) ? attempt : null,
    path,
    stream: call.stream,
    prompt_tokens: call.promptTokens,
    answer_tokens: answer.tokens.length,
    fault: fault?.mode ?? null,
  };
}
