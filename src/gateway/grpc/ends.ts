import type { SluiceError } from '../../errors.ts';
import { tokensRange } from '../../policy/index.ts';
import { asSluiceError } from '../answers.ts';
import type { Key } from '../caller.ts';
import type { FlowEnd } from '../flows.ts';
import { requestIdLabel } from './decision.ts';
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

/**
 * `FlowEnd` of clients from 2.8 on. A flow that several policies limit comes back once for each of them,
 * and clients may repeat it all: only the first one counts. @throws SluiceError while Redis is away
 */
export async function endFlows(
  { inflight_requests: refs }: FlowEndRequest,
  key: Key,
  endOwn: EndOwn,
): Promise<FlowEndResponse> {
  const statuses = await eachOf(refs, async (ref) => {
    const answer = { inflight_request_ref: ref, returned: true, error: '' };
    try {
      await endOwn(key, ref.request_id, { tokens: tokensOf(ref) });
      return answer;
    } catch (thrown) {
      const { message } = throwUnlessAnswer(thrown);
      return { ...answer, returned: false, error: message };
    }
  });
  return { token_return_statuses: statuses };
}

/**
 * Clients before 2.8 say that a flow has ended with a span, which carries what `Check` answered. Those
 * of later ones come too, and end nothing that has not ended. @throws SluiceError while Redis is away
 */
export async function endBySpans(request: ExportRequest, key: Key, endOwn: EndOwn): Promise<void> {
  const spans = request.resource_spans.flatMap(({ scope_spans: scopes }) =>
    scopes.flatMap((scope) => scope.spans),
  );
  await eachOf(spans.flatMap(endOf), async ({ id, failed }) => {
    // Of spans that are not from here nothing is said.
    await endOwn(key, id, { failed }).catch(throwUnlessAnswer);
  });
}

function endOf({ attributes }: Span): { id: string; failed: boolean }[] {
  const textOf = (name: string) =>
    attributes.find(({ key }) => key === name)?.value?.string_value ?? '';
  const id = idIn(textOf('aperture.check_response'));
  return id === undefined ? [] : [{ id, failed: textOf('aperture.flow.status') === 'Error' }];
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

/** Runs all of them, some at a time, and throws only then what the first that failed threw. */
async function eachOf<Item, Result>(
  items: readonly Item[],
  run: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const settled: PromiseSettledResult<Result>[] = [];
  for (let from = 0; from < items.length; from += endsAtOnce) {
    settled.push(...(await Promise.allSettled(items.slice(from, from + endsAtOnce).map(run))));
  }
  return settled.map((one) => {
    if (one.status === 'rejected') throw one.reason;
    return one.value;
  });
}
