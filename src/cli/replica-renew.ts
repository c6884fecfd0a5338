import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceClientError } from '../client/errors.ts';
import type { Http } from '../client/http.ts';
import type { Body } from './replica-put.ts';

/**
 * A replica that is put again and again, until it is told to leave. States: renewed <-> away, where no
 * gateway answers; it is put more often then, lest it lapses. What a gateway refuses ends it.
 */
export interface Renewal {
  readonly http: Http;
  readonly path: string;
  readonly body: Body;
  readonly ttlMs: number;
  /** It goes. */
  readonly leaving: AbortSignal;
  readonly onPut: (answer: Record<string, unknown>) => void;
  readonly onAway: (error: unknown) => void;
  readonly onBack: () => void;
}

/** Puts in each TTL: two may be lost. */
const putsPerTtl = 3;
/** Longest wait for an answer, ms. */
const mostAnswerMs = 5_000;
/** The first wait where no gateway answers, ms; twice as long each time, up to that of a renewal. */
const firstAgainMs = 200;

/** From one put to the next, ms. */
export function renewalMs(ttlMs: number): number {
  return Math.floor(ttlMs / putsPerTtl);
}

/** Resolves when it is to leave. @throws SluiceClientError what a gateway refuses */
export async function keepRenewed(renewal: Renewal): Promise<void> {
  const { http, path, ttlMs, leaving } = renewal;
  const everyMs = renewalMs(ttlMs);
  // After one that is lost there is time for another.
  const deadlineMs = Math.min(mostAnswerMs, Math.floor(ttlMs / 2));
  let { body } = renewal;
  let [puts, failures] = [0, 0];
  while (!leaving.aborted) {
    const startedMs = performance.now();
    let nextMs = everyMs;
    try {
      // Not ended by `leaving`: one that arrives after the removal would put it back.
      const answer = await http.call('PUT', path, { body, deadlineMs });
      if (puts === 0) renewal.onPut(answer);
      if (failures > 0) renewal.onBack();
      // Later ones leave its state to whoever drains it.
      body = { ...body, state: undefined };
      puts += 1;
      failures = 0;
    } catch (error) {
      if (!mayPass(error)) throw error;
      if (failures === 0) renewal.onAway(error);
      // Shorter by up to a half, so that replicas spread.
      const longest = Math.min(everyMs, firstAgainMs * 2 ** Math.min(failures, 16));
      nextMs = longest * (0.5 + Math.random() / 2);
      failures += 1;
    }
    const restMs = Math.max(0, nextMs - (performance.now() - startedMs));
    await sleep(restMs, undefined, { signal: leaving }).catch(() => undefined);
  }
}

/** Takes it out; undefined where it is gone already. @throws SluiceClientError */
export async function leave(
  http: Http,
  path: string,
): Promise<Record<string, unknown> | undefined> {
  try {
    return await http.call('DELETE', path, { deadlineMs: mostAnswerMs });
  } catch (error) {
    if (error instanceof SluiceClientError && error.code === 'not_found') return undefined;
    throw error;
  }
}

/** No answer, or none of a gateway's own that would be the same again. */
function mayPass(error: unknown): boolean {
  if (!(error instanceof SluiceClientError)) return false;
  return error.status === undefined || error.status >= 500;
}
