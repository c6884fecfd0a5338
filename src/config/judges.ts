/** What is wrong with a config file beyond its shape. Each bears any value, see `Judge`. */
import { isMapping, join, type Problem, shown } from '../document.ts';

/** A replica's id when the file gives none: its pool and its place in the list, from 1. */
export function defaultReplicaId(pool: string, index: number): string {
  return `${pool}-${index + 1}`;
}

/** At least one pool, and ids of replicas that are unique among all pools: they name them in the API. */
export function judgePools(pools: unknown, path: string, problems: Problem[]): void {
  if (!isMapping(pools)) return;
  if (Object.keys(pools).length === 0) {
    problems.push({ path, reason: 'must name at least one pool' });
  }
  const places = new Map<unknown, string>();
  for (const [name, pool] of Object.entries(pools)) {
    if (!isMapping(pool) || !Array.isArray(pool.replicas)) continue;
    pool.replicas.forEach((replica: unknown, index) => {
      const given = isMapping(replica) ? replica.id : undefined;
      const id = given ?? defaultReplicaId(name, index);
      const place = `${join(path, name)}.replicas[${index}]`;
      const first = places.get(id);
      if (first === undefined) places.set(id, place);
      else problems.push({ path: `${place}.id`, reason: `${shown(id)} is the id of ${first} too` });
    });
  }
}

/** A key stands for one set of labels. */
export function judgeKeys(keys: unknown, path: string, problems: Problem[]): void {
  if (!Array.isArray(keys)) return;
  const places = new Map<string, string>();
  keys.forEach((entry: unknown, index) => {
    if (!isMapping(entry) || typeof entry.key !== 'string') return;
    const place = join(path, index);
    const first = places.get(entry.key);
    if (first === undefined) places.set(entry.key, place);
    else problems.push({ path: `${place}.key`, reason: `is the same as that of ${first}` });
  });
}
