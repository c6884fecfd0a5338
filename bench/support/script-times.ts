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

/** What was called since the reset. */
export async function readScriptTimes(redis: Redis): Promise<ScriptTimes> {
  const commands = String(await redis.info('commandstats'));
  const latencies = String(await redis.info('latencystats'));
  let calls = 0;
  let totalUs = 0;
  const longestUs: number[] = [0];
  for (const name of ['fcall']) {
    const counted = new RegExp(`^cmdstat_${name}:calls=(\\d+),usec=(\\d+)`, 'm').exec(commands);
    calls += Number(counted?.[1] ?? 0);
    totalUs += Number(counted?.[2] ?? 0);
    const longest = new RegExp(`^latency_percentiles_usec_${name}:.*p100=([\\d.]+)`, 'm');
    longestUs.push(Number(longest.exec(latencies)?.[1] ?? 0));
  }
  if (calls === 0) throw new Error('no step was called since the reset: nothing was measured');
  // [id, time, microseconds, [command, ...], ...]; the histogram ends at one second, this does not.
  const slow = (await redis.call('SLOWLOG', 'GET', slowLogLength)) as [
    number,
    number,
    number,
    string[],
  ][];
  const scripts = slow.filter(([, , , command]) => /^fcall/i.test(String(command[0])));
  for (const [, , us] of scripts) longestUs.push(us);
  return {
    calls,
    meanMs: totalUs / calls / 1_000,
    longestMs: Math.max(...longestUs) / 1_000,
    overBound: scripts.length,
  };
}
