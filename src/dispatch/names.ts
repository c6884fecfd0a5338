/** Names of BullMQ's side. Its keys carry the pool as hash tag, so a pool is one cluster slot. */

/** One attempt at a prompt, as BullMQ carries it: no body, that stays with the request. */
export interface PromptJob {
  readonly id: string;
  readonly attempt: number;
  readonly pool: string;
}

export const queueName = 'prompts';

export function prefixOf(pool: string): string {
  return `{sluice:${pool}}`;
}

/** BullMQ runs a job id once as long as it knows it, so each attempt has its own. */
export function jobIdOf(job: PromptJob): string {
  return `${job.id}-${job.attempt}`;
}
