/**
 * How long the script calls took, as Redis itself has measured them: from the histogram that it
 * keeps of each command (to two digits), and from its slow log for those over the bound.
 */

import type { Redis } from 'ioredis';

/** No script call may hold up the server for longer, ms. */
export const longestCallMs = 5;

const slowLogLength = 1_024;

export interface ScriptTimes {
  readonly calls: number;
  readonly meanMs: number;
  readonly longestMs: number;
  /** Calls over {@link longestCallMs}. */
  readonly overBound: number;
}

/** Begins anew: everything before is forgotten. */
export async function resetScriptTimes(redis: Redis): Promise<void> {
  await redis.config('SET', 'latency-tracking', 'yes');
  await redis.config('SET', 'latency-tracking-info-percentiles', '50 99 100');
  await redis.config('SET', 'slowlog-log-slower-than', String(longestCallMs * 1_000));
  await redis.config('SET', 'slowlog-max-len', String(slowLogLength));
  await redis.call('SLOWLOG', 'RESET');
  await redis.config('RESETSTAT');
}

/** What was called since the reset: steps, or other scripts by the command that runs them. */
export async function readScriptTimes(redis: Redis, command = 'fcall'): Promise<ScriptTimes> {
  const commands = String(await redis.info('commandstats'));
  const latencies = String(await redis.info('latencystats'));
  const counted = new RegExp(`^cmdstat_${command}:calls=(\\d+),usec=(\\d+)`, 'm').exec(commands);
  const calls = Number(counted?.[1] ?? 0);
  const totalUs = Number(counted?.[2] ?? 0);
  const longest = new RegExp(`^latency_percentiles_usec_${command}:.*p100=([\\d.]+)`, 'm');
  const longestUs = [Number(longest.exec(latencies)?.[1] ?? 0)];
  if (calls === 0) throw new Error('no script was called since the reset: nothing was measured');
  // [id, time, microseconds, [command, ...], ...]; the histogram ends at one second, this does not.
  const slow = (await redis.call('SLOWLOG', 'GET', slowLogLength)) as [
    number,
    number,
    number,
    string[],
  ][];
  const scripts = slow.filter(([, , , [name]]) => String(name).toLowerCase() === command);
  for (const [, , us] of scripts) longestUs.push(us);
  return {
    calls,
    meanMs: totalUs / calls / 1_000,
    longestMs: Math.max(...longestUs) / 1_000,
    overBound: scripts.length,
  };
}

/**
 * The machine's own part: a script that only counts, as long as a step takes, for so long. What it
 * takes longer than its mean is what the machine, not the script, has added.
 */
export async function measureNoise(
  redis: Redis,
  stepMs: number,
  forMs: number,
): Promise<ScriptTimes> {
  const count = (to: number) => redis.eval('for i = 1, ARGV[1] do end', 0, to);
  const million = 1_000_000;
  await resetScriptTimes(redis);
  for (let i = 0; i < 20; i++) await count(million);
  const perMillionMs = (await readScriptTimes(redis, 'eval')).meanMs;
  const to = Math.round((million * stepMs) / perMillionMs);
  await resetScriptTimes(redis);
  for (const endAt = performance.now() + forMs; performance.now() < endAt; ) {
    await Promise.all(Array.from({ length: 16 }, () => count(to)));
  }
  return readScriptTimes(redis, 'eval');
}
