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
 * Hands admitted prompts to BullMQ, one queue for each pool. Adding a job twice is harmless: BullMQ
 * ignores a known job id, and `begin` lets one delivery of an attempt through.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #queues = new Map<string, Queue<PromptJob>>();
  readonly #pending = new Set<Promise<void>>();

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  /** Starts the hand-over and returns; a failure goes to `onError`. */
  dispatch(jobs: readonly PromptJob[]): void {
    const work = this.#hand(jobs).catch(this.#options.onError);
    this.#pending.add(work);
    void work.finally(() => this.#pending.delete(work));
  }

  /** Waits for what was begun, then closes the queues. */
  async stop(): Promise<void> {
    await Promise.all(this.#pending);
    await Promise.all([...this.#queues.values()].map((queue) => queue.close()));
    this.#queues.clear();
  }

  async #hand(jobs: readonly PromptJob[]): Promise<void> {
    const byPool = Map.groupBy(jobs, (job) => job.pool);
    for (const [pool, list] of byPool) {
      await this.#queue(pool).addBulk(
        list.map((job) => ({
          name: 'prompt',
          data: job,
          // BullMQ carries and nothing more: retries and order are the engine's.
          opts: { jobId: jobIdOf(job), attempts: 1, removeOnComplete: true, removeOnFail: true },
        })),
      );
      await this.#options.acknowledge(list);
    }
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
