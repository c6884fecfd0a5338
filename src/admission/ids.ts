import { randomUUID } from 'node:crypto';

/**
 * Ids of requests: `main-mhz3k2ab9-<16 hex>`. They name their domain, so any gateway finds the
 * request, and carry the time they were made, so a repeat that comes later than records are kept is
 * known to be old. No ':' (BullMQ forbids it in a job id) and no space (see lua/lib/step.lua).
 */

/** A new id, made at `nowMs`. */
export function makeId(domain: string, nowMs: number): string {
  // 64 of its random bits; Node draws those of many at once.
  const random = randomUUID();
  return `${domain}-${nowMs.toString(36)}-${random.slice(0, 8)}${random.slice(-8)}`;
}

/** The parts of an id, or undefined for what is not one. */
export function parseId(id: string): { domain: string; timeMs: number } | undefined {
  const parts = /^([a-z0-9_]{1,32})-([0-9a-z]{8,9})-[0-9a-f]{16}$/.exec(id);
  if (!parts?.[1] || !parts[2]) return undefined;
  return { domain: parts[1], timeMs: Number.parseInt(parts[2], 36) };
}
