import { execFile, spawn } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { lockFolder } from './lock.ts';
import { type ServerProcess, superviseServer } from './process.ts';

export type NativeKind = 'valkey-server' | 'redis-server';

const run = promisify(execFile);
const askMs = 2_000;
const majorNeeded = 7;

/** The first of `kinds` on the PATH, or in `binDir`, that is new enough. */
export async function findNativeServer(options: {
  kinds: NativeKind[];
  binDir?: string | undefined;
}): Promise<{ kind: NativeKind; program: string } | undefined> {
  for (const kind of options.kinds) {
    const program = options.binDir === undefined ? kind : join(options.binDir, kind);
    const version = await run(program, ['--version'], { timeout: askMs }).catch(() => undefined);
    // "Redis server v=7.2.4 sha=...", "Valkey server v=8.0.1 sha=..."
    const major = Number(/ v=(\d+)\./.exec(version?.stdout ?? '')?.[1] ?? 0);
    if (major >= majorNeeded) return { kind, program };
  }
  return undefined;
}

/** Loopback only, never evicts; with `appendOnly` what it acknowledged a second ago is on disk. */
export async function spawnNativeServer(options: {
  program: string;
  dir: string;
  appendOnly: boolean;
  port: number;
  readyMs: number;
}): Promise<ServerProcess> {
  const lock = await lockFolder(options.dir);
  const command = [
    ...(await endWithParent()),
    options.program,
    ...['--port', String(options.port)],
    ...['--bind', '127.0.0.1'],
    ...['--dir', options.dir],
    ...['--appendonly', options.appendOnly ? 'yes' : 'no'],
    ...['--save', ''],
    ...['--maxmemory-policy', 'noeviction'],
    ...['--daemonize', 'no'],
    ...['--logfile', ''],
  ];
  const [program = '', ...args] = command;
  // A group of its own: Ctrl-C in a terminal reaches the parent only, which drains before it stops
  // its Redis.
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const server = await superviseServer(child, {
    port: options.port,
    readyMs: options.readyMs,
    knowsItsPid: true,
    onEnd: lock.release,
  });
  await lock.record({ pid: server.pid, runId: server.runId, port: options.port });
  return server;
}

/** What to put before a command so that the kernel ends it with us, even on SIGKILL; [] if nothing can. */
async function endWithParent(): Promise<string[]> {
  const prefix = ['setpriv', '--pdeathsig', 'TERM', '--'];
  const [program = '', ...args] = prefix;
  const works = await run(program, [...args, 'true'], { timeout: askMs }).then(
    () => true,
    () => false,
  );
  return works ? prefix : [];
}
