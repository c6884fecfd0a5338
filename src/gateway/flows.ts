import { type Admission, makeId, parseId } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { type FlowDecided, flowDecided } from '../diagnostics.ts';
import { SluiceError } from '../errors.ts';
import type { Schedule } from '../policy/index.ts';
import { publishDecision } from './decisions.ts';
import type { FlowWaits } from './flow-waits.ts';
import type { Asked, Intake } from './intake.ts';
import { boundedControlPoint, type PolicyBook } from './policy-book.ts';
import { raced } from './raced.ts';
import { endError } from './rejections.ts';
import { withId } from './request-ids.ts';

/** A flow that asks to be admitted. */
export interface AskedFlow extends Omit<Asked, 'id'> {
  /** Whether its caller says again and again that it is still at it. */
  readonly heartbeat: boolean;
}

export interface AdmittedFlow {
  readonly id: string;
  /** How long it is kept without another word, ms. */
  readonly leaseMs: number;
  /** Whether any limit holds for it. */
  readonly limited: boolean;
  readonly plan: Schedule;
  /** Whether there is a slot that its end gives back. */
  readonly holdsSlots: boolean;
}

/** What a flow's caller says at its end. */
export interface FlowEnd {
  /** Actual tokens, 1 to 1e7; what it was charged when absent. */
  readonly tokens?: number | undefined;
  readonly failed?: boolean | undefined;
}

/** As in Aperture: what a flow costs where neither it, nor a label, nor a policy says so. */
export const defaultTokens = 1;

/** Past its deadline a flow has been decided; if Redis does not say so for this long, it is away, ms. */
const silenceMs = 5_000;

/**
 * Requests whose work the caller does itself, between start and end. They hold slots of policies and
 * none of a pool, until their end, their heartbeat stops, or the max inflight duration is over.
 */
export class Flows {
  readonly #parts: FlowsParts;

  constructor(parts: FlowsParts) {
    this.#parts = parts;
  }

  /**
   * Waits until it is admitted. When one of the signals aborts first, it leaves the queue, and this
   * throws the signal's reason.
   * @throws SluiceError when it is rejected
   */
  async start(asked: AskedFlow, signals: readonly AbortSignal[]): Promise<AdmittedFlow> {
    const { config, admission, intake, waits, gatewayId } = this.#parts;
    const id = makeId(config.domain, admission.now());
    const startedAtMs = Date.now();
    const silent = new AbortController();
    const all = [...signals, silent.signal];
    const news = waits.listen(id);
    const taking = intake.submit({ ...asked, id }, { kind: 'flow', owner: gatewayId });
    let timer: NodeJS.Timeout | undefined;
    try {
      const { plan, result, timeoutMs, maxInflightMs } = await raced(taking, all);
      let leaseMs = maxInflightMs;
      let holdsSlots = plan.maxInflightMs !== undefined;
      waits.accepted(id);
      if (result.state !== 'admitted') {
        timer = setTimeout(() => silent.abort(isSilent()), timeoutMs + silenceMs);
        if (result.status === 'known') void waits.check();
        const told = await raced(news, all);
        if (told !== 'admitted') {
          if (told.state === 'rejected') publishDecision(plan, false);
          throw endError(told, plan.deniedStatus);
        }
      }
      // One that was admitted as it was submitted is its caller's already.
      const isOwn = result.status === 'accepted' && result.state === 'admitted';
      if (!isOwn || asked.heartbeat) {
        const kept = await raced(admission.keepFlow({ id, heartbeat: asked.heartbeat }), all);
        if (kept.status !== 'kept') throw await this.#endOf(id);
        leaseMs = kept.lease_ms ?? leaseMs;
        // The policies may have changed while it waited.
        holdsSlots = kept.slots ?? holdsSlots;
      }
      publishDecision(plan, true);
      this.#decided(id, asked, 'admitted', startedAtMs);
      const limited = plan.limiters.length + plan.rates.length > 0;
      return { id, leaseMs, limited, plan, holdsSlots };
    } catch (error) {
      void this.#withdraw(id, taking);
      const code = error instanceof SluiceError ? error.code : 'internal';
      this.#decided(id, asked, code, startedAtMs);
      throw withId(error, id);
    } finally {
      clearTimeout(timer);
      waits.forget(id);
    }
  }

  /** Flows that wait at this gateway. */
  get waiting(): number {
    return this.#parts.waits.size;
  }

  /** Its caller is still at it. Returns for how long it is kept, ms. @throws SluiceError flow_over */
  async keep(id: string): Promise<number> {
    this.#checkId(id);
    const kept = await this.#parts.admission.keepFlow({ id, heartbeat: true });
    if (kept.status === 'kept') return kept.lease_ms ?? 0;
    const { message } = await this.#endOf(id);
    throw new SluiceError('flow_over', `the flow is over: ${message}`);
  }

  /** Ends it, or says how it has ended already. @throws SluiceError unknown_flow */
  async end(id: string, { tokens, failed = false }: FlowEnd): Promise<string> {
    this.#checkId(id);
    const { admission } = this.#parts;
    const outcome = failed ? 'failed' : 'done';
    const result = await admission.finish({ id }, { outcome, tokens });
    if (result.status !== 'stale') return result.state;
    if (result.state === 'admitted') return 'expired';
    if (result.state !== 'waiting') throw unknownFlow();
    await admission.cancel(id, 'its caller ended it before it was admitted');
    return 'cancelled';
  }

  /** Anything may be sent as an id; what is none of this domain's is not Redis' concern. */
  #checkId(id: string): void {
    if (parseId(id)?.domain !== this.#parts.config.domain) throw unknownFlow();
  }

  /** Nobody will use it, whatever becomes of it. */
  async #withdraw(id: string, taking: Promise<unknown>): Promise<void> {
    const isRefused = (error: unknown) => error instanceof SluiceError;
    if (!(await taking.then(() => false, isRefused))) await this.#parts.waits.withdraw(id);
  }

  async #endOf(id: string): Promise<SluiceError> {
    const { request, ended } = await this.#parts.admission.inspectRequest(id);
    if (ended?.state === 'done') return new SluiceError('flow_over', 'its caller has ended it');
    if (ended) return endError(ended);
    if (request?.state === 'waiting') return new SluiceError('flow_over', 'it has not begun');
    return request ? new SluiceError('expired', 'its lease has ended') : unknownFlow();
  }

  #decided(id: string, { controlPoint }: AskedFlow, outcome: string, startedAtMs: number): void {
    if (!flowDecided.hasSubscribers) return;
    const { book, config } = this.#parts;
    flowDecided.publish({
      id,
      controlPoint: boundedControlPoint(book, config, controlPoint),
      outcome,
      startedAtMs,
      totalMs: Date.now() - startedAtMs,
    } satisfies FlowDecided);
  }
}

export function unknownFlow(): SluiceError {
  return new SluiceError('unknown_flow', 'there is no such flow, or it ended long ago');
}

interface FlowsParts {
  readonly config: Config;
  readonly admission: Admission;
  readonly book: PolicyBook;
  readonly intake: Intake;
  readonly waits: FlowWaits;
  readonly gatewayId: string;
}

function isSilent(): SluiceError {
  return new SluiceError('unavailable', 'Redis does not say what became of the flow');
}
