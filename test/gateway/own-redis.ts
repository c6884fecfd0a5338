/** A Redis of one test's own, which it may take away. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { type RedisServer, startRedisServer } from '../../src/redis-server/index.ts';

/** A server that can be stopped and started again on its port, with what it kept. */
export async function ownRedis(appendOnly: boolean) {
  const dir = await mkdtemp(join(tmpdir(), 'sluice-outage-'));
  let server: RedisServer = await startRedisServer({ dir, appendOnly });
  onTestFinished(async () => {
    await server.stop();
    await rm(dir, { recursive: true, force: true });
  });
  const port = Number(new URL(server.url).port);
  return {
    url: server.url,
    kind: server.kind,
    stop: () => server.stop(),
    startAgain: async () => {
      if (!appendOnly) await rm(join(dir, 'dump.rdb'), { force: true });
      server = await startRedisServer({ dir, appendOnly, port });
    },
  };
}
