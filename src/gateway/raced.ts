/**
 * What a promise comes to, or, when one of the signals aborts first, its reason, thrown. What the
 * promise comes to then is nobody's concern here.
 */
export async function raced<Value>(
  promise: Promise<Value>,
  signals: readonly AbortSignal[],
): Promise<Value> {
  const left = Promise.withResolvers<never>();
  const leave = () => left.reject(signals.find(({ aborted }) => aborted)?.reason);
  for (const signal of signals) signal.addEventListener('abort', leave);
  if (signals.some(({ aborted }) => aborted)) leave();
  try {
    return await Promise.race([promise, left.promise]);
  } finally {
    for (const signal of signals) signal.removeEventListener('abort', leave);
    promise.catch(() => undefined);
  }
}
