import type { ServerUnaryCall } from '@grpc/grpc-js';
import type { Config } from '../../config.ts';
import { SluiceError } from '../../errors.ts';
import { validateLabels } from '../../policy/index.ts';
import { asSluiceError } from '../answers.ts';
import type { Key } from '../caller.ts';
import { defaultTokens, type Flows } from '../flows.ts';
import type { PolicyBook } from '../policy-book.ts';
import { raced } from '../raced.ts';
import { requestIdOf } from '../request-ids.ts';
import type { FlowCache } from './cache.ts';
import { accepted, type Question, rejected } from './check-response.ts';
import type { CheckRequest, CheckResponse } from './messages.ts';

/**
 * How long before the client's own deadline it is told, in ms: a part of what it gives, within bounds, and
 * more when many wait, who may all have one deadline. A client that hears nothing in time runs.
 */
const guard = { part: 0.1, leastMs: 50, mostMs: 1_000, eachWaitingMs: 1 } as const;

export interface CheckParts {
  readonly config: Config;
  readonly flows: Flows;
  readonly book: PolicyBook;
  readonly cache: FlowCache;
  /** Aborts when the gateway can wait for its clients no longer. */
  readonly closing: AbortSignal;
  /** @throws SluiceError unauthorized */
  readonly readKey: (call: ServerUnaryCall<CheckRequest, CheckResponse>) => Key;
  /** Told of what was refused. */
  readonly report: (error: unknown) => void;
}

/** Answers when the flow may run, or when it may not, and before its client gives up. Never throws. */
export async function check(
  call: ServerUnaryCall<CheckRequest, CheckResponse>,
  parts: CheckParts,
): Promise<CheckResponse> {
  const { control_point: controlPoint, labels, cache_lookup_request: wanted } = call.request;
  const question: Question = {
    controlPoint,
    labelKeys: Object.keys(labels),
    startedAtMs: Date.now(),
  };
  const gone = new AbortController();
  const late = new AbortController();
  const onCancelled = () => gone.abort(new SluiceError('cancelled', 'its client went away'));
  call.on('cancelled', onCancelled);
  if (call.cancelled) onCancelled();
  const signals = [gone.signal, late.signal, parts.closing];
  const { timeoutMs, answerWithinMs } = patienceOf(call, parts);
  const timer = answerWithinMs && setTimeout(() => late.abort(tooLate()), answerWithinMs);
  try {
    const key = parts.readKey(call);
    // Clients name the control point of the flow alone.
    const lookup = wanted && { ...wanted, control_point: controlPoint };
    const found = lookup && (await raced(parts.cache.lookup(lookup, key), signals));
    const cached = found && { cache_lookup_response: found };
    // What is known already takes no turn.
    if (found?.result_cache_response?.lookup_status === 'HIT') {
      return { ...accepted(question), ...cached };
    }
    const asked = {
      ...key,
      controlPoint,
      labels: validateLabels({ ...labels, ...key.keyLabels }, parts.config.limits),
      boundLabels: Object.keys(key.keyLabels),
      timeoutMs,
      tokensEstimate: defaultTokens,
      heartbeat: false,
    };
    const flow = await parts.flows.start(asked, signals);
    // Its client will say nothing of its end, and nothing waits for it.
    if (!flow.holdsSlots) void parts.flows.end(flow.id, {}).catch(parts.report);
    return { ...accepted(question, flow, parts.book.policies), ...cached };
  } catch (thrown) {
    parts.report(thrown);
    return rejected(question, asSluiceError(thrown), requestIdOf(thrown));
  } finally {
    clearTimeout(timer);
    call.off('cancelled', onCancelled);
  }
}

interface Patience {
  /** How long the flow may wait by its client's deadline; as its policy says when undefined. */
  readonly timeoutMs?: number;
  /** When it is told, whatever Redis says. */
  readonly answerWithinMs?: number;
}

function patienceOf(
  call: { getDeadline(): Date | number },
  { config, flows }: Pick<CheckParts, 'config' | 'flows'>,
): Patience {
  const leftMs = Number(call.getDeadline()) - Date.now();
  const most = config.timeouts.maxTimeoutMs;
  if (leftMs === Number.POSITIVE_INFINITY) return {};
  if (leftMs > most) return { timeoutMs: most };
  const alone = Math.min(Math.max(leftMs * guard.part, guard.leastMs), guard.mostMs);
  const guardMs = Math.min(
    alone + guard.eachWaitingMs * flows.waiting,
    Math.max(leftMs / 2, alone),
  );
  return {
    timeoutMs: Math.max(1, Math.floor(leftMs - guardMs)),
    answerWithinMs: Math.max(1, leftMs - guardMs / 2),
  };
}

function tooLate(): SluiceError {
  const message = 'its turn did not come within its deadline';
  return new SluiceError('queue_timeout', message, { retryAfterMs: 1_000 });
}
