/**
 * What a promise resolves to; `late` when it has not after `ms`, and `aborted` when the signal came
 * first. The promise goes on: it can be waited for again.
 */
export async function within<Value>(
  ms: number,
  promise: Promise<Value>,
  signal: AbortSignal,
): Promise<Value | 'late' | 'aborted'> {
  if (signal.aborted) return 'aborted';
  const { promise: other, resolve } = Promise.withResolvers<'late' | 'aborted'>();
  const timer = setTimeout(() => resolve('late'), ms);
  const onAbort = () => resolve('aborted');
  signal.addEventListener('abort', onAbort);
  try {
    return await Promise.race([promise, other]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}
