/** Durations as people write them. A leaf, and a light one: every command may load it. */

const unitMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/**
 * Milliseconds of a duration in Go's syntax (https://pkg.go.dev/time#ParseDuration) without a sign:
 * `60s`, `1m30s`, `1.5h`, `500ms`, rounded to whole milliseconds. Undefined when it is not one.
 */
export function parseDuration(value: string): number | undefined {
  if (value === '0') return 0;
  if (value.length > 64 || !/^(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+$/.test(value)) {
    return undefined;
  }
  let ms = 0;
  for (const [, amount, unit] of value.matchAll(/([\d.]+)(ns|us|µs|ms|s|m|h)/g)) {
    ms += Number(amount) * (unitMs[unit ?? ''] ?? Number.NaN);
  }
  ms = Math.round(ms);
  return Number.isSafeInteger(ms) ? ms : undefined;
}

/** The shortest duration text of whole milliseconds: 90000 is `1m30s`. Inverse of {@link parseDuration}. */
export function formatDuration(ms: number): string {
  const parts: [number, string][] = [
    [Math.floor(ms / 3_600_000), 'h'],
    [Math.floor(ms / 60_000) % 60, 'm'],
    [Math.floor(ms / 1000) % 60, 's'],
    [ms % 1000, 'ms'],
  ];
  const written = parts.filter(([amount]) => amount > 0).map(([amount, unit]) => amount + unit);
  return written.length > 0 ? written.join('') : '0s';
}
