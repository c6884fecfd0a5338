import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { infoOf, RedisServerError } from './process.ts';

const fileName = 'redis-server.json';
const askMs = 2_000;
const shutDownMs = 10_000;

interface Holder {
  pid: number;
  runId: string;
  port: number;
}

interface FolderLock {
  record(holder: Holder): Promise<void>;
  release(): Promise<void>;
}

/**
 * One server per data folder: two that append to the same file destroy it, and Redis itself does
 * not look. The file in the folder names the server that uses it and the process that started it.
 * A server whose starter is dead was left behind (killed with SIGKILL) and is shut down, so that
 * the next one reads everything it wrote.
 *
 * @throws {RedisServerError} `folder_in_use`
 */
export async function lockFolder(dir: string): Promise<FolderLock> {
  const file = join(dir, fileName);
  const left = await readHolder(file);
  if (left !== undefined && (await answers(left))) {
    if (isAlive(left.ownerPid)) {
      throw new RedisServerError(
        'folder_in_use',
        `${dir} is in use by the server on port ${left.port} (process ${left.pid}, started by process ${left.ownerPid}); stop that one or use another folder`,
      );
    }
    await shutDown(left);
  }
  return {
    record: (holder) => writeFile(file, JSON.stringify({ ...holder, ownerPid: process.pid })),
    release: () => rm(file, { force: true }),
  };
}

async function readHolder(file: string): Promise<(Holder & { ownerPid: number }) | undefined> {
  const text = await readFile(file, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    const read: unknown = JSON.parse(text);
    if (typeof read !== 'object' || read === null) return undefined;
    const { pid, runId, port, ownerPid } = read as Record<string, unknown>;
    if (typeof pid !== 'number' || typeof port !== 'number') return undefined;
    if (typeof runId !== 'string' || typeof ownerPid !== 'number') return undefined;
    return { pid, runId, port, ownerPid };
  } catch {
    // Cut short by a crash while it was written: that server was not in use yet.
    return undefined;
  }
}

/** Whether the very server that is recorded answers; another one on its port does not count. */
async function answers(holder: Holder): Promise<boolean> {
  if (!isAlive(holder.pid)) return false;
  const info = await infoOf(holder.port, AbortSignal.timeout(askMs)).catch(() => undefined);
  return info?.runId === holder.runId;
}

async function shutDown(holder: Holder): Promise<void> {
  const redis = new Redis({ host: '127.0.0.1', port: holder.port, retryStrategy: () => null });
  redis.on('error', () => {});
  // Answers only when it fails.
  const refused = await redis.shutdown('NOSAVE').then(
    () => undefined,
    (error: unknown) => error,
  );
  redis.disconnect();
  const deadline = Date.now() + shutDownMs;
  while (isAlive(holder.pid)) {
    if (Date.now() > deadline) {
      throw new RedisServerError('folder_in_use', `process ${holder.pid} does not shut down`, {
        cause: refused,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
