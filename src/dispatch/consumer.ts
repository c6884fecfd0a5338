import { Worker } from 'bullmq';
import type { Redis } from 'ioredis';
import { type PromptJob, prefixOf, queueName } from './names.ts';

export interface ConsumerOptions {
  readonly redis: Redis;
  readonly domain: string;
  readonly pool: string;
  /** Prompts of this pool that this process runs at once. */
  readonly concurrency: number;
  /** Runs one attempt to its end. What it throws is ours to mend: it goes to `onError`. */
  readonly run: (job: PromptJob) => Promise<void>;
  readonly onError: (error: unknown) => void;
}

/**
 * Pulls a pool's prompts from BullMQ. Blocking reads, no polling. A job of a worker that died is
 * dropped by BullMQ (`maxStalledCount: 0`): the engine has already made a new attempt of it.
 */
export class Consumer {
  readonly #worker: Worker<PromptJob, void>;

  constructor(options: ConsumerOptions) {
    this.#worker = new Worker<PromptJob, void>(
      queueName,
      async (job) => {
        await options.run(job.data).catch(options.onError);
      },
      {
        connection: options.redis,
        prefix: prefixOf(options.domain, options.pool),
        concurrency: options.concurrency,
        maxStalledCount: 0,
        autorun: false,
      },
    );
    this.#worker.on('error', options.onError);
  }

  async start(): Promise<void> {
    await this.#worker.waitUntilReady();
    this.#worker.run().catch(() => {
      // Closing ends the loop; other errors have come through 'error'.
    });
  }

  /** Takes no more and waits for what runs. */
  async stop(): Promise<void> {
    await this.#worker.close();
  }
}
