import { SluiceError } from '../src/errors.ts';
import {
  type ReplicaClient,
  ReplicaFailure,
  type ReplicaReply,
  readText,
  tooLarge,
} from '../src/pool/index.ts';
import {
  type ClientPrompt,
  type Exchange,
  exchangeFor,
  framingFor,
  MalformedReply,
  ReplicaError,
  type StreamReader,
  splitter,
  type Target,
} from '../src/protocols/index.ts';
import {
  type Answer,
  type AnswerWriter,
  type EventId,
  encodeAnswer,
  idText,
} from '../src/stream/index.ts';

/** What is asked of one replica, and where its answer goes. */
export interface Asked {
  readonly prompt: ClientPrompt;
  readonly target: Target & { readonly url: string; readonly credentials?: string | undefined };
  readonly requestId: string;
  readonly attempt: number;
  readonly writer: AnswerWriter;
  /** Ends it from outside. */
  readonly signal: AbortSignal;
}

export interface ExchangeLimits {
  /** Largest answer of a replica, bytes. */
  readonly answerBytes: number;
  readonly firstTokenMs: number;
  readonly streamIdleMs: number;
}

export type Exchanged =
  | {
      readonly status: 'answered';
      readonly answer: { readonly text: string; readonly at: string };
      readonly tokens: number | undefined;
    }
  /** No replica of this kind can serve it. */
  | { readonly status: 'refused'; readonly message: string }
  | {
      readonly status: 'failed';
      /** For the client. */
      readonly message: string;
      /** For the log: without what the replica says, which may quote a prompt. */
      readonly reason: string;
      readonly evidence: Evidence;
    };

/**
 * What a failure says of the replica:
 *   unreached    the prompt never got there, which cannot be its doing
 *   unavailable  it says itself that it cannot serve now
 *   broken       it broke off or kept silent, which may be the prompt's doing
 *   none         it answered, though not with an answer
 */
export type Evidence = 'unreached' | 'unavailable' | 'broken' | 'none';

/** How long a replica has to close its answer once that is complete, ms. */
const closeMs = 1_000;
/** Largest single event of a stream, bytes: a token is a few. */
const eventBytes = 1024 * 1024;

/**
 * One prompt at one replica: asks in the replica's protocol, answers in the client's, and appends a
 * streamed answer as it comes. @throws the reason of `signal` when that ended it, and what Redis says
 */
export async function exchange(
  replicas: ReplicaClient,
  asked: Asked,
  limits: ExchangeLimits,
): Promise<Exchanged> {
  // An answer in one piece is bounded by its lease alone.
  const deadline = asked.prompt.stream ? new Deadline(asked.signal) : undefined;
  try {
    const { prompt, target, requestId, attempt } = asked;
    const plan = exchangeFor(prompt, target);
    deadline?.set(limits.firstTokenMs, 'no token came');
    const { signal } = deadline ?? asked;
    const reply = await replicas.call({
      url: target.url,
      credentials: target.credentials,
      request: plan.request,
      prompt: { id: requestId, attempt },
      signal,
    });
    if (reply.httpStatus >= 400) return await refusal(plan, reply, asked, limits);
    if (deadline) return await stream(plan, reply, asked, limits, deadline);
    const body = await readText(reply, limits.answerBytes);
    const { contentType, body: text, tokens } = plan.whole({ ...reply, body });
    return answered(asked, { status: reply.httpStatus, contentType, body: text }, tokens);
  } catch (error) {
    asked.signal.throwIfAborted();
    const failure = failureOf(error);
    if (failure) return failure;
    throw error;
  } finally {
    deadline?.clear();
  }
}

function failureOf(error: unknown): Exchanged | undefined {
  if (error instanceof ReplicaFailure) {
    const { message } = error;
    return { status: 'failed', message, reason: message, evidence: evidenceIn(error) };
  }
  if (error instanceof MalformedReply) {
    const message = `the replica failed: its answer makes no sense: ${error.message}`;
    return { status: 'failed', message, reason: message, evidence: 'none' };
  }
  if (error instanceof ReplicaError) {
    const message = `the replica failed: ${error.message}`;
    return { status: 'failed', message, reason: 'it reported an error', evidence: 'none' };
  }
  if (error instanceof SluiceError) return { status: 'refused', message: error.message };
  return undefined;
}

function evidenceIn({ isDown, wasSent, httpStatus }: ReplicaFailure): Evidence {
  if (!wasSent) return 'unreached';
  if (!isDown) return 'none';
  return httpStatus === undefined ? 'broken' : 'unavailable';
}

/** 4xx: the replica's own no, which is the client's answer. */
async function refusal(
  plan: Exchange,
  reply: ReplicaReply,
  asked: Asked,
  limits: ExchangeLimits,
): Promise<Exchanged> {
  const body = await readText(reply, limits.answerBytes);
  const { httpStatus: status, contentType } = reply;
  const said = plan.refusal({ status, contentType, body });
  return answered(asked, { status, contentType: said.contentType, body: said.body }, undefined);
}

async function stream(
  plan: Exchange,
  reply: ReplicaReply,
  asked: Asked,
  limits: ExchangeLimits,
  deadline: Deadline,
): Promise<Exchanged> {
  const reader = plan.reader(reply.contentType);
  let size = 0;
  for await (const said of untilDone(eventsOf(plan, reply, limits), reader, asked.signal)) {
    const events = reader.next(said);
    if (reader.isDone) deadline.set(closeMs, 'its end did not come');
    else if (events.length > 0) deadline.set(limits.streamIdleMs, 'no token followed');
    for (const event of events) size += Buffer.byteLength(event);
    if (size > limits.answerBytes) throw tooLarge(limits.answerBytes);
    await asked.writer.write(events);
  }
  return streamEnd(asked, reader);
}

/** Once a replica has said all, it makes no difference how its connection ends. */
async function* untilDone(
  events: AsyncIterable<string>,
  reader: StreamReader,
  signal: AbortSignal,
): AsyncGenerator<string> {
  try {
    yield* events;
  } catch (error) {
    if (!reader.isDone || !(error instanceof ReplicaFailure) || signal.aborted) throw error;
  }
}

/** What the replica says, one event after the other. */
async function* eventsOf(
  plan: Exchange,
  reply: ReplicaReply,
  limits: ExchangeLimits,
): AsyncGenerator<string> {
  if (plan.replyFraming === 'whole') {
    yield await readText(reply, limits.answerBytes);
    return;
  }
  const pieces = splitter(plan.replyFraming, eventBytes);
  for await (const bytes of reply.bytes) yield* pieces.push(bytes);
  yield* pieces.end();
}

async function streamEnd({ prompt, writer }: Asked, reader: StreamReader): Promise<Exchanged> {
  await writer.write(reader.end());
  const { events, at } = await writer.end();
  return {
    status: 'answered',
    answer: encoded({ status: 200, contentType: framingFor(prompt.path).contentType, events }, at),
    tokens: reader.tokens,
  };
}

function answered(asked: Asked, answer: Answer, tokens: number | undefined): Exchanged {
  return {
    status: 'answered',
    answer: encoded(answer, { attempt: asked.attempt, count: asked.writer.count + 1 }),
    tokens,
  };
}

function encoded(answer: Answer, at: EventId): { text: string; at: string } {
  return { text: encodeAnswer(answer), at: idText(at) };
}

/** A signal that aborts with another, or when its time is over. */
class Deadline {
  readonly #controller = new AbortController();
  readonly signal: AbortSignal;
  #timer: NodeJS.Timeout | undefined;

  constructor(outer: AbortSignal) {
    this.signal = AbortSignal.any([outer, this.#controller.signal]);
  }

  set(ms: number, what: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#controller.abort(
        new ReplicaFailure(`the replica failed: ${what} within ${ms} ms`, true),
      );
    }, ms);
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}
