/// <reference lib="esnext.disposable" preserve="true" />
import { SluiceClientError } from './errors.ts';
import type { Http } from './http.ts';

/** How a flow ended, for {@link Flow.end}. */
export interface EndOptions {
  /** What the work really cost; settles what was estimated at the start. */
  readonly tokens?: number | undefined;
  /** `error` when the work failed. */
  readonly status?: 'ok' | 'error' | undefined;
}

/** What the gateway says of a flow that is over. */
export interface FlowEnd {
  readonly id: string;
  /** `done` or `failed`, or how it had ended before: `expired`, `cancelled`. */
  readonly state: string;
}

/** Longest wait for the answer to an end or a heartbeat, ms. */
const answerMs = 5_000;
/** Waits before an end is sent again, ms, each more or less by half so that clients spread. */
const endAgainMs = [100, 400, 1_600];
/** Heartbeats for each lease: two may be lost. */
const beatsPerLease = 3;
/** Whatever the lease: not more often, ms. */
const leastBeatMs = 20;

/** A flow that is admitted: it holds its place under every limit until it ends. */
export class Flow {
  readonly id: string;
  /** Whether any policy limits it. */
  readonly limited: boolean;
  /**
   * Aborts when the gateway says that the flow is over though nobody has ended it here: its lease ran
   * out, or it was cancelled. Others may have its place by then, so the work should stop. Only with
   * heartbeats is that heard of. The reason is a {@link SluiceClientError} with code `flow_over`, or
   * `unknown_flow` when it is over for long.
   */
  readonly signal: AbortSignal;
  readonly #http: Http;
  readonly #over = new AbortController();
  #leaseMs: number;
  #timer: NodeJS.Timeout | undefined;
  #ending: Promise<FlowEnd> | undefined;

  /** Made by `SluiceClient.startFlow`. */
  constructor(http: Http, admitted: Record<string, unknown>, withHeartbeats: boolean) {
    this.#http = http;
    this.id = String(admitted.id);
    this.limited = admitted.limited === true;
    this.#leaseMs = leaseOf(admitted);
    this.signal = this.#over.signal;
    if (withHeartbeats) this.#beatIn(this.#leaseMs / beatsPerLease);
  }

  /** How long the gateway keeps the flow without another word, ms. */
  get leaseMs(): number {
    return this.#leaseMs;
  }

  /**
   * Ends the flow, which admits who is next. A repeat is the same promise, unless that one failed. An
   * end that does not arrive is sent again, a few times; then it throws, and the lease ends the flow.
   */
  end(options: EndOptions = {}): Promise<FlowEnd> {
    clearTimeout(this.#timer);
    this.#ending ??= endFlow(this.#http, this.id, options).catch((error: unknown) => {
      this.#ending = undefined;
      throw error;
    });
    return this.#ending;
  }

  /**
   * Ends it with its block, `await using flow = ...`; never throws, since the lease ends what this
   * could not. Node before 18.18 has no such symbol, and this is then a method that nobody calls.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.end().catch(() => {});
  }

  #beatIn(wantedMs: number): void {
    const ms = Math.max(wantedMs, leastBeatMs);
    this.#timer = setTimeout(() => void this.#beat(), ms);
    // The work keeps the process alive, not its heartbeats.
    this.#timer.unref();
  }

  /** A heartbeat that does not arrive is no end: the next one follows at its time. */
  async #beat(): Promise<void> {
    const startedMs = performance.now();
    const deadlineMs = Math.min(answerMs, Math.ceil(this.#leaseMs / beatsPerLease));
    try {
      this.#leaseMs = await heartbeat(this.#http, this.id, deadlineMs);
    } catch (error) {
      if (isOver(error)) {
        if (this.#ending === undefined) this.#over.abort(error);
        return;
      }
    }
    if (this.#ending !== undefined) return;
    const tookMs = performance.now() - startedMs;
    this.#beatIn(Math.max(0, this.#leaseMs / beatsPerLease - tookMs));
  }
}

/** Ends a flow by its id. Safe to repeat, so what did not arrive is sent again. */
export async function endFlow(http: Http, id: string, options: EndOptions): Promise<FlowEnd> {
  const body = { tokens: options.tokens, status: options.status };
  for (let tries = 0; ; tries += 1) {
    try {
      const answer = await http.call('POST', pathOf(id, 'end'), { body, deadlineMs: answerMs });
      return { id, state: String(answer.state) };
    } catch (error) {
      const againMs = endAgainMs[tries];
      if (againMs === undefined || !mayPass(error)) throw error;
      await new Promise((resolve) => setTimeout(resolve, againMs * (0.5 + Math.random())));
    }
  }
}

/** One sign of life for a flow; returns its new lease, ms. */
export async function heartbeat(http: Http, id: string, deadlineMs = answerMs): Promise<number> {
  return leaseOf(await http.call('POST', pathOf(id, 'heartbeat'), { deadlineMs }));
}

/** @throws SluiceClientError when the answer has none: it says how often heartbeats are due */
function leaseOf({ lease_ms }: Record<string, unknown>): number {
  if (typeof lease_ms === 'number' && lease_ms > 0) return lease_ms;
  throw new SluiceClientError('not_a_gateway', 'the answer has no lease_ms');
}

function pathOf(id: string, action: string): string {
  return `/v1/flows/${encodeURIComponent(id)}/${action}`;
}

/** No answer, or one that another try may change. */
function mayPass(error: unknown): boolean {
  if (!(error instanceof SluiceClientError)) return false;
  return error.status === undefined || error.status >= 500;
}

function isOver(error: unknown): boolean {
  return (
    error instanceof SluiceClientError &&
    (error.code === 'flow_over' || error.code === 'unknown_flow')
  );
}
