import type { TestProject } from 'vitest/node';
import { startTestRedis, type TestServer } from './redis.ts';

declare module 'vitest' {
  interface ProvidedContext {
    redis: TestServer;
  }
}

/** One Redis a run; see redis.ts for which. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const redis = await startTestRedis();
  project.provide('redis', { url: redis.url, kind: redis.kind, runId: redis.runId });
  return redis.stop;
}
