import type { Admission, LiveRequest } from '../admission/index.ts';
import { type Policy, schedule } from '../policy/index.ts';
import type { Asked } from './intake.ts';
import type { PolicyBook } from './policy-book.ts';

/** Requests of one step: keeps a script call short. */
const pageItems = 64;
/** How long another gateway leaves the work to the one that changed the policies, ms. */
const helpAfterMs = 500;

/** What decides where a request waits. */
export interface Rules {
  readonly policies: readonly Policy[];
  /** Control points where nobody is admitted. */
  readonly paused: ReadonlySet<string>;
}

/**
 * Puts every live request into the queue that the policies of `version` give it. Until that is done
 * nobody is admitted: a request that does not count against a new limit yet would be let past it.
 * Who holds slots comes first, so that no slot is counted too late. Several gateways may do it at a
 * time; whoever is through first ends it. Stops early, and says false, when the policies have
 * changed again.
 */
export async function rekey(
  admission: Admission,
  { policies, paused }: Rules,
  version: number,
): Promise<boolean> {
  for (const hash of ['held', 'requests'] as const) {
    let cursor = '0';
    do {
      const page = await admission.inspectPage(hash, cursor, pageItems);
      cursor = page.cursor;
      const moved = page.requests.flatMap((request) => {
        const queue = queueOf(request, { policies, paused });
        return queue === request.queue ? [] : [{ id: request.id, queue }];
      });
      for (let from = 0; from < moved.length; from += pageItems) {
        const items = moved.slice(from, from + pageItems);
        if ((await admission.rekey(version, items)).status !== 'rekeyed') return false;
      }
    } while (cursor !== '0');
  }
  return (await admission.rekey(version, [], true)).status === 'rekeyed';
}

/**
 * The label under which a request keeps what else is to be known of its caller. It has no name: callers
 * cannot send such a label, and no policy can ask for it.
 */
const callerLabel = '';

interface KeptCaller {
  /** Its `Sluice-Priority` header, for when it is keyed anew. */
  readonly priority?: number | undefined;
  /** The labels that its API key set, over which that does not win. */
  readonly bound?: readonly string[] | undefined;
  /** Tells its API key from others; absent where there are none. */
  readonly key?: string | undefined;
}

/** What a request is kept with, to be scheduled again from. */
export function keptLabels({
  labels,
  priority,
  boundLabels,
  keyId: key = '',
}: Pick<Asked, 'labels' | 'priority' | 'boundLabels' | 'keyId'>): Readonly<Record<string, string>> {
  if (priority === undefined && key === '') return labels;
  const bound = priority === undefined ? undefined : boundLabels;
  const kept: KeptCaller = { priority, bound, key: key === '' ? undefined : key };
  return { ...labels, [callerLabel]: JSON.stringify(kept) };
}

/** The inverse of {@link keptLabels}. */
export function callerOf(
  kept: Readonly<Record<string, string>>,
): Pick<Asked, 'labels' | 'priority' | 'boundLabels' | 'keyId'> {
  const { [callerLabel]: _, ...labels } = kept;
  const { priority, bound: boundLabels, key: keyId } = keptCaller(kept);
  return { labels, priority, boundLabels, keyId };
}

/** The API key that a request came with; '' where there are none. */
export function keyOf(labels: Readonly<Record<string, string>> = {}): string {
  return keptCaller(labels).key ?? '';
}

function keptCaller({ [callerLabel]: kept = '{}' }: Readonly<Record<string, string>>): KeptCaller {
  return JSON.parse(kept) as KeptCaller;
}

/** Where the policies put a request that is in the system already. */
function queueOf(request: LiveRequest, { policies, paused }: Rules): string {
  const { labels, priority: headerPriority, boundLabels } = callerOf(request.labels);
  try {
    return schedule(policies, {
      controlPoint: request.control_point,
      isPaused: paused.has(request.control_point),
      labels,
      headerPriority,
      boundLabels,
      tokensEstimate: request.cost,
      pool: request.pool,
    }).queue;
  } catch {
    // A label that a new policy reads is not what it must be, and nobody is there to be told: the
    // request stays where it was accepted.
    return request.queue;
  }
}

/** Sees to it that requests are keyed anew, also when the gateway that began it has died. */
export class Rekeyer {
  readonly #admission: Admission;
  readonly #book: PolicyBook;
  readonly #onError: (error: unknown) => void;
  #timer: NodeJS.Timeout | undefined;
  #running = false;
  /** Settles when all that was asked for has been done or has failed. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(admission: Admission, book: PolicyBook, onError: (error: unknown) => void) {
    this.#admission = admission;
    this.#book = book;
    this.#onError = onError;
    admission.onReply(({ rekeying }) => {
      if (rekeying === undefined || this.#running || this.#timer !== undefined) return;
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.run().catch(this.#onError);
      }, helpAfterMs);
    });
  }

  /** Brings the policies here, and keys requests anew if that is to be done; resolves when it is. */
  run(): Promise<void> {
    // One that is under way may be past what the caller has changed: another one follows it.
    const run = this.#last.then(() => this.#run());
    this.#last = run.catch(() => undefined);
    return run;
  }

  async #run(): Promise<void> {
    this.#running = true;
    try {
      for (let done = false; !done; ) {
        await this.#book.refresh();
        const { version, rekeying } = await this.#admission.inspectPolicies();
        if (rekeying === undefined) return;
        done =
          version === this.#book.version && (await rekey(this.#admission, this.#book, version));
      }
    } finally {
      this.#running = false;
    }
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
