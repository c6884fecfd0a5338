/**
 * What a promise resolves to, or `late` when it has not after `ms`. The promise goes on: it can be
 * waited for again.
 */
export async function within<Value>(ms: number, promise: Promise<Value>): Promise<Value | 'late'> {
  const late = Promise.withResolvers<'late'>();
  const timer = setTimeout(() => late.resolve('late'), ms);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
