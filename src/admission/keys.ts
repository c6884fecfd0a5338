/**
 * Names of a domain's keys. All carry the domain's hash tag, so a domain is one slot of a Redis
 * Cluster and one step is atomic. The order is that of `lua/lib/step.lua`.
 */

/** What the keys hold is readable by code of this schema only. */
export const keySchema = '3';

const stepKeys = [
  'meta',
  'requests',
  'held',
  'bodies',
  'waiting',
  'standing',
  'queues',
  'gates',
  'tree',
  'fair',
  'idle',
  'limits',
  'in_flight',
  'buckets',
  'full_at',
  'lengths',
  'timers',
  'outbox',
  'members',
  'replicas',
  'probes',
  'dead',
  'dead_bodies',
  'dead_at',
  'policies',
  'ended',
  'ended_before',
  'jobs_ended',
  'jobs_ended_before',
  'due',
] as const;

/** A name within a domain, `sluice:{main}:requests`. */
export function domainKey(domain: string, name: string): string {
  return `sluice:{${domain}}:${name}`;
}

/** KEYS of every step. The last is the prefix of the domain's channels, `node:` and `stream:`. */
export function keysOfStep(domain: string): string[] {
  return [...stepKeys, ''].map((name) => domainKey(domain, name));
}

/** Where a request's answer is kept, a Redis stream with a TTL; and the channel of who follows a job. */
export function streamKey(domain: string, id: string): string {
  return domainKey(domain, `stream:${id}`);
}

/** Which request an Idempotency-Key stands for. */
export function idempotencyKey(domain: string, key: string): string {
  return domainKey(domain, `idempotency:${key}`);
}

/** What callers keep for each other, and until when. */
export function cacheKeys(domain: string): readonly [values: string, times: string] {
  return [domainKey(domain, 'cache'), domainKey(domain, 'cache_until')];
}

/** The channel on which a gateway or a worker hears of its requests. */
export function nodeChannel(domain: string, node: string): string {
  return domainKey(domain, `node:${node}`);
}
