/** Races of a worker's attempts that need Redis to be away at the right moment. */

import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Redis } from 'ioredis';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import type { BeginResult } from '../../src/admission/index.ts';
import { ReplicaClient } from '../../src/pool/index.ts';
import { encodePrompt } from '../../src/protocols/index.ts';
import { Appender } from '../../src/stream/index.ts';
import { Attempts, type AttemptsOptions } from '../../workers/attempts.ts';

test('an older attempt that reports late does not end the heartbeat of a younger one', async () => {
  // A replica that answers the first attempt and keeps the second one open.
  const open: ServerResponse[] = [];
  const server = createServer((request, response) => {
    if (request.headers['sluice-attempt'] === '1') response.end('{}');
    else open.push(response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const replica = { id: 'r', pool: 'p', url: `http://127.0.0.1:${port}`, protocol: 'ollama' };
  const begun: BeginResult = {
    status: 'run',
    body: encodePrompt({ path: '/api/generate', model: 'm', stream: false, body: '{}' }),
    replica: { ...replica, max_inflight: 1, state: 'ready', health: 'up' },
    end_by: Date.now() + 60_000,
    keep_ms: 1_000,
  };
  let redisIsAway = true;
  const firstReport = Promise.withResolvers<void>();
  let onRenew = (_attempts: readonly number[]) => {};
  const admission: AttemptsOptions['admission'] = {
    domain: 'd',
    now: () => Date.now(),
    begin: async () => begun,
    renew: async (holders) => {
      onRenew(holders.map(({ attempt }) => attempt));
      return { items: holders.map(({ id }) => ({ id, status: 'kept' })) };
    },
    finish: async (holder) => {
      firstReport.resolve();
      if (redisIsAway) throw new Error('Redis is away');
      const first = 'attempt' in holder && holder.attempt === 1;
      return first ? { status: 'stale' } : { status: 'ended', state: 'done' };
    },
  };
  const replicas = new ReplicaClient();
  onTestFinished(() => replicas.stop());
  const attempts = new Attempts({
    admission,
    replicas,
    // Nothing is streamed here.
    appender: new Appender({ redis: {} as Redis, flushMs: 1 }),
    workerId: 'w',
    heartbeatMs: 600,
    abortMarginMs: 10,
    replicaDownMs: 1,
    limits: { answerBytes: 1_000, firstTokenMs: 1_000, streamIdleMs: 1_000 },
    log: pino({ level: 'silent' }),
  });
  attempts.start();
  onTestFinished(() => attempts.close());

  const first = attempts.run({ id: 'x', attempt: 1, pool: 'p' });
  await firstReport.promise;
  const second = attempts.run({ id: 'x', attempt: 2, pool: 'p' });
  redisIsAway = false;
  await first;
  const renewed = await new Promise<readonly number[]>((resolve) => {
    onRenew = resolve;
  });
  expect(renewed).toEqual([2]);
  for (const response of open) response.end('{}');
  await second;
});
