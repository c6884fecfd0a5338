/**
 * The client for Node 18 and newer: flows, whose work the caller does itself, between start and end.
 * It imports nothing of ours, since other programs import it.
 */
import { FlowRejectedError, SluiceClientError } from './errors.ts';
import { type EndOptions, endFlow, Flow, type FlowEnd, heartbeat } from './flow.ts';
import { type Connection, Http } from './http.ts';

export { FlowRejectedError, SluiceClientError } from './errors.ts';
export type { EndOptions, Flow, FlowEnd } from './flow.ts';
export type { Connection, Fetch } from './http.ts';

/** What a flow asks for. */
export interface FlowOptions {
  /** Who asks: policies read them. Those of the API key win. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** The longest wait in the queue, ms; the policy's otherwise. */
  readonly timeoutMs?: number | undefined;
  /** What it is likely to cost. */
  readonly tokens?: number | undefined;
  /**
   * Send signs of life until the end. The place of a process that dies is then free after a few
   * seconds, and not only when the policy's longest time in flight is over.
   */
  readonly heartbeat?: boolean | undefined;
  /** Gives up the wait: the connection is closed, and the flow taken out of the queue. */
  readonly signal?: AbortSignal | undefined;
}

/** Codes with which a flow is turned away that was asked for in the right way. */
const rejections: ReadonlySet<string> = new Set([
  'queue_full',
  'rate_limited',
  'queue_timeout',
  'cancelled',
  'unavailable',
]);

export class SluiceClient {
  readonly #http: Http;

  /** @throws TypeError when the URL is none */
  constructor(connection: Connection) {
    this.#http = new Http(connection);
  }

  /**
   * Waits in line at the control point until the flow is admitted. Do the work then, and end it.
   * @throws FlowRejectedError when it is turned away
   * @throws SluiceClientError when it cannot be asked for at all
   */
  async startFlow(controlPoint: string, options: FlowOptions = {}): Promise<Flow> {
    const { labels, timeoutMs, tokens, heartbeat = false, signal } = options;
    const body = { control_point: controlPoint, labels, timeout_ms: timeoutMs, tokens, heartbeat };
    const admitted = await this.#admitted(body, signal);
    const flow = new Flow(this.#http, admitted, heartbeat);
    if (signal?.aborted) {
      // Admitted in the same moment: nobody will do its work.
      await flow.end().catch(() => {});
      throw signal.reason;
    }
    return flow;
  }

  /**
   * Starts a flow, does the work and ends the flow whatever happens, with the status `error` when the
   * work throws. The work's own result or error counts: when the end cannot be told to a gateway,
   * after a few tries, the lease ends the flow.
   */
  async withFlow<Result>(
    controlPoint: string,
    options: FlowOptions,
    work: (flow: Flow) => Result | Promise<Result>,
  ): Promise<Result> {
    const flow = await this.startFlow(controlPoint, options);
    let status: 'ok' | 'error' = 'error';
    try {
      const result = await work(flow);
      status = 'ok';
      return result;
    } finally {
      await flow.end({ status }).catch(() => {});
    }
  }

  /** Ends a flow that another process may have started. */
  endFlow(id: string, options: EndOptions = {}): Promise<FlowEnd> {
    return endFlow(this.#http, id, options);
  }

  /** One sign of life for a flow that another process may have started; returns its lease, ms. */
  heartbeat(id: string): Promise<number> {
    return heartbeat(this.#http, id);
  }

  async #admitted(body: object, signal: AbortSignal | undefined): Promise<Record<string, unknown>> {
    try {
      return await this.#http.call('POST', '/v1/flows', { body, signal });
    } catch (error) {
      if (!(error instanceof SluiceClientError) || !rejections.has(error.code)) throw error;
      const { code, message, status, retryAfterMs, param } = error;
      throw new FlowRejectedError(code, message, { status, retryAfterMs, param, cause: error });
    }
  }
}
