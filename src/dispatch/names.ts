/**
 * Names of BullMQ's side. Its keys carry domain and pool as hash tag: a pool is one cluster slot, and
 * two domains on one Redis never take each other's jobs.
 */

/** One attempt at a prompt, as BullMQ carries it: no body, that stays with the request. */
export interface PromptJob {
  readonly id: string;
  readonly attempt: number;
  readonly pool: string;
}

export const queueName = 'prompts';

export function prefixOf(domain: string, pool: string): string {
  return `{sluice:${domain}:${pool}}`;
}

/** BullMQ runs a job id once as long as it knows it, so each attempt has its own. */
export function jobIdOf(job: PromptJob): string {
  return `${job.id}-${job.attempt}`;
}
