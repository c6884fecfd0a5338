import { SluiceError } from '../../errors.ts';
import { tokensRange } from '../../policy/index.ts';
import { asSluiceError } from '../answers.ts';
import type { Key } from '../caller.ts';
import type { FlowEnd } from '../flows.ts';
import { requestIdLabel } from './check-response.ts';
import type {
  ExportRequest,
  FlowEndRequest,
  FlowEndResponse,
  InflightRequestRef,
  Span,
} from './messages.ts';

/** Ends a flow of the key's. @throws SluiceError */
export type EndOwn = (key: Key, id: string, end: FlowEnd) => Promise<string>;

/** Ends of one call that are under way at a time. */
const endsAtOnce = 32;
/** Flows of one call; SDKs send one, or a batch of 512 spans. */
const mostEnds = 2_000;

/**
 * `FlowEnd` of clients from 2.8 on. A flow that several policies limit comes back once for each of them,
 * and clients may repeat it all: only the first one counts. @throws SluiceError while Redis is away
 */
export async function endFlows(
  { inflight_requests: refs }: FlowEndRequest,
  key: Key,
  endOwn: EndOwn,
): Promise<FlowEndResponse> {
  const first = new Map(refs.toReversed().map((ref) => [ref.request_id, ref]));
  const errors = await eachOf([...first.values()], async (ref): Promise<[string, string]> => {
    const end = { tokens: tokensOf(ref) };
    const error = await endOwn(key, ref.request_id, end).then(() => undefined, throwUnlessAnswer);
    return [ref.request_id, error?.message ?? ''];
  });
  const errorOf = new Map(errors);
  const statuses = refs.map((ref) => {
    const error = errorOf.get(ref.request_id) ?? '';
    return { inflight_request_ref: ref, returned: error === '', error };
  });
  return { token_return_statuses: statuses };
}

/**
 * Clients before 2.8 say that a flow has ended with a span, which carries what `Check` answered. Those
 * of later ones come too, and end nothing that has not ended. Returns how late the first of them told it,
 * by its program's clock, ms; 0 for none. @throws SluiceError while Redis is away
 */
export async function endBySpans(
  request: ExportRequest,
  key: Key,
  endOwn: EndOwn,
): Promise<number> {
  const spans = request.resource_spans.flatMap(({ scope_spans: scopes }) =>
    scopes.flatMap((scope) => scope.spans),
  );
  const ours = spans.filter((span) => endOf(span).length > 0);
  const failed = new Map(ours.flatMap(endOf));
  await eachOf([...failed], async ([id, isFailed]) => {
    // Of spans that are not from here nothing is said.
    await endOwn(key, id, { failed: isFailed }).catch(throwUnlessAnswer);
  });
  const endedMs = ours.map((span) => span.end_time_unix_nano / 1e6).filter((ms) => ms > 0);
  return endedMs.length === 0 ? 0 : Math.max(0, Date.now() - Math.min(...endedMs));
}

/** Its flow, and whether that has failed. */
function endOf({ attributes }: Span): [string, boolean][] {
  const textOf = (name: string) =>
    attributes.find(({ key }) => key === name)?.value?.string_value ?? '';
  const id = idIn(textOf('aperture.check_response'));
  return id === undefined ? [] : [[id, textOf('aperture.flow.status') === 'Error']];
}

/** Anyone may export spans, with anything in them. */
function idIn(checkResponse: string): string | undefined {
  if (!checkResponse.includes(requestIdLabel)) return undefined;
  try {
    const { telemetryFlowLabels, telemetry_flow_labels } = JSON.parse(checkResponse) ?? {};
    const id: unknown = (telemetryFlowLabels ?? telemetry_flow_labels)?.[requestIdLabel];
    return typeof id === 'string' ? id : undefined;
  } catch {
    return undefined;
  }
}

/** Clients repeat what they were told to have consumed; one that knows better says so. */
function tokensOf({ tokens }: InflightRequestRef): number | undefined {
  return tokens >= tokensRange.least && tokens <= tokensRange.most ? Math.round(tokens) : undefined;
}

/** What is said of one flow, or the failure of the whole call, which its client then repeats. */
function throwUnlessAnswer(thrown: unknown): SluiceError {
  const error = asSluiceError(thrown);
  if (error.code === 'unavailable' || error.code === 'internal') throw error;
  return error;
}

/**
 * Runs all of them, some at a time, and throws only then what the first that failed threw.
 * @throws SluiceError invalid_request for more than anybody has at a time
 */
async function eachOf<Item, Result>(
  items: readonly Item[],
  run: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  if (items.length > mostEnds) {
    throw new SluiceError('invalid_request', `at most ${mostEnds} flows end in one call`);
  }
  const settled: PromiseSettledResult<Result>[] = [];
  for (let from = 0; from < items.length; from += endsAtOnce) {
    settled.push(...(await Promise.allSettled(items.slice(from, from + endsAtOnce).map(run))));
  }
  return settled.map((one) => {
    if (one.status === 'rejected') throw one.reason;
    return one.value;
  });
}
