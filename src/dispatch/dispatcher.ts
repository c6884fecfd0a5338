import { Queue } from 'bullmq';
import type { Redis } from 'ioredis';
import { jobIdOf, type PromptJob, prefixOf, queueName } from './names.ts';

export interface DispatcherOptions {
  readonly redis: Redis;
  readonly domain: string;
  /** BullMQ has these: take them out of the outbox. */
  readonly acknowledge: (jobs: readonly PromptJob[]) => Promise<void>;
  /** A hand-over failed. Nothing is lost: the outbox is offered again. */
  readonly onError: (error: unknown) => void;
}

/**
 * How long hand-overs are collected before they are acknowledged, ms: far less than the time after
 * which the outbox is offered again. Most have begun by then, which takes them out of the outbox too.
 */
const acknowledgeMs = 50;

/**
 * Hands admitted prompts to BullMQ, one queue for each pool. Adding a job twice is harmless: BullMQ
 * ignores a known job id, and `begin` lets one delivery of an attempt through.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #queues = new Map<string, Queue<PromptJob>>();
  readonly #pending = new Set<Promise<void>>();
  #handed: PromptJob[] = [];
  #stopped = false;
  #acknowledging: NodeJS.Timeout | undefined;

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  /** Starts the hand-over and returns; a failure goes to `onError`. */
  dispatch(jobs: readonly PromptJob[]): void {
    this.#track(this.#hand(jobs));
  }

  /** Waits for what was begun, then closes the queues. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#pending);
    this.#track(this.#acknowledge());
    await Promise.all(this.#pending);
    await Promise.all([...this.#queues.values()].map((queue) => queue.close()));
    this.#queues.clear();
  }

  async #hand(jobs: readonly PromptJob[]): Promise<void> {
    const byPool = Map.groupBy(jobs, (job) => job.pool);
    for (const [pool, list] of byPool) {
      await this.#add(this.#queue(pool), list);
      this.#handed.push(...list);
      if (this.#stopped) continue;
      this.#acknowledging ??= setTimeout(() => this.#track(this.#acknowledge()), acknowledgeMs);
    }
  }

  async #add(queue: Queue<PromptJob>, list: readonly PromptJob[]): Promise<void> {
    const jobs = list.map((data) => ({ name: 'prompt', data, opts: optionsOf(data) }));
    const [only] = jobs;
    // One by itself needs no transaction.
    if (only && jobs.length === 1) await queue.add(only.name, only.data, only.opts);
    else await queue.addBulk(jobs);
  }

  #track(work: Promise<void>): void {
    const done = work.catch(this.#options.onError);
    this.#pending.add(done);
    void done.finally(() => this.#pending.delete(done));
  }

  async #acknowledge(): Promise<void> {
    clearTimeout(this.#acknowledging);
    this.#acknowledging = undefined;
    const handed = this.#handed;
    this.#handed = [];
    if (handed.length > 0) await this.#options.acknowledge(handed);
  }

  #queue(pool: string): Queue<PromptJob> {
    let queue = this.#queues.get(pool);
    if (!queue) {
      const { redis, domain } = this.#options;
      queue = new Queue(queueName, { connection: redis, prefix: prefixOf(domain, pool) });
      queue.on('error', this.#options.onError);
      this.#queues.set(pool, queue);
    }
    return queue;
  }
}

/** BullMQ carries and nothing more: retries and order are the engine's. */
function optionsOf(job: PromptJob) {
  return { jobId: jobIdOf(job), attempts: 1, removeOnComplete: true, removeOnFail: true };
}
