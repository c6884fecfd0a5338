/** The few statistics that the results are made of. */

/** The value below which the fraction `p` of the values lies (nearest rank). */
export function percentile(values: readonly number[], p: number): number {
  const sorted = values.toSorted((left, right) => left - right);
  const rank = Math.min(sorted.length, Math.max(1, Math.ceil(p * sorted.length)));
  const value = sorted[rank - 1];
  if (value === undefined) throw new Error('no values to take a percentile of');
  return value;
}

/** The middle value; of an even number of values the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const half = values.length / 2;
  const sorted = values.toSorted((left, right) => left - right);
  const [low, high] = [sorted[Math.ceil(half) - 1], sorted[Math.floor(half)]];
  if (low === undefined || high === undefined) throw new Error('no values to take a median of');
  return (low + high) / 2;
}

/** Each figure over the one of the same round, so that noise which hit both cancels out. */
export function ratios(above: readonly number[], below: readonly number[]): number[] {
  return above.map((value, round) => value / (below[round] ?? Number.NaN));
}

/** Each figure less the one of the same round. */
export function differences(from: readonly number[], less: readonly number[]): number[] {
  return from.map((value, round) => value - (less[round] ?? Number.NaN));
}
