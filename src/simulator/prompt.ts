/**
 * The life of one prompt in the replica: taken, run on the GPU model, answered, and ended in exactly
 * one way. It ends in the ledger before the last byte is sent, so a client that has its answer
 * never still counts as in flight.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { SluiceError } from '../errors.ts';
import type { Engine } from './engine.ts';
import type { Fault } from './faults.ts';
import { header, sendPage } from './http.ts';
import type { Entry, Ledger } from './ledger.ts';
import type { Settings } from './options.ts';
import type { Call } from './protocol.ts';
import { type Answer, answerTo } from './text.ts';

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
  const answer: Answer =
    call.kind === 'embedding'
      ? { tokens: [], finishReason: 'stop' }
      : answerTo(call.input, settings.answerTokens, call.maxTokens);
  const entry = entryOf(prompt, answer, request);

  switch (fault?.mode) {
    case 'unavailable':
    case 'error':
      ledger.fail(entry);
      throw errorOf(fault);
    case 'hang': {
      const end = ledger.start(entry);
      response.once('close', () => end('aborted'));
      return;
    }
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

/** What a request gets that `unavailable` or `error` hits. */
export function errorOf(fault: Fault): SluiceError {
  if (fault.mode === 'error') return new SluiceError('internal', 'a simulated internal error');
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
  const stream = call.stream ? rendering.stream : undefined;
  const breakAfter = breakingPoint(fault);
  const answerTokens = Math.min(answer.tokens.length, breakAfter ?? answer.tokens.length);

  let sent = 0;
  const send = (written: number, flushed?: () => void) => {
    if (!stream || written === sent) {
      flushed?.();
      return;
    }
    if (sent === 0) {
      response.writeHead(200, {
        'content-type': stream.contentType,
        'cache-control': 'no-cache',
      });
    }
    const text = answer.tokens.slice(sent, written).join('');
    response.write(stream.chunk(text, sent === 0), flushed);
    sent = written;
  };

  const end = ledger.start(entry);
  const takeBack = engine.run(
    {
      promptTokens: call.promptTokens,
      answerTokens,
      ...(stream ? { groupTokens: settings.streamTokens } : {}),
      ...(fault?.mode === 'slow' ? { slowdown: fault.factor ?? 4 } : {}),
    },
    {
      tokens: (written) => send(written),
      ended(timing) {
        if (breakAfter !== undefined) {
          end('failed');
          send(answerTokens, () => {
            if (fault?.mode === 'die') settings.onDie?.();
            response.destroy();
          });
          return;
        }
        send(answerTokens);
        end('completed');
        if (stream) response.end(stream.last(timing));
        else sendPage(response, 200, rendering.whole(timing));
      },
    },
  );
  // After a normal end both are without effect.
  response.once('close', () => {
    takeBack();
    end('aborted');
  });
}

/** After how many tokens the answer breaks off, if it does. */
function breakingPoint(fault: Fault | undefined): number | undefined {
  if (fault?.mode === 'cut') return fault.after_tokens ?? 1;
  if (fault?.mode === 'die') return fault.after_tokens;
  return undefined;
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
