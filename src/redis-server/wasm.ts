import { fork } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ServerProcess, superviseServer } from './process.ts';

/** A `.ts` in a clone, a `.js` in a package, as this file is. */
const childName = `./wasm-child${extname(import.meta.filename)}`;
const childFile = fileURLToPath(new URL(childName, import.meta.url));

/**
 * Valkey in WebAssembly, in a process of its own: its commands block the thread they run on. Keeps
 * nothing on disk.
 */
export async function spawnWasmServer(options: {
  port: number;
  readyMs: number;
}): Promise<ServerProcess> {
  const child = fork(childFile, [String(options.port)], {
    // Not the parent's flags: a test runner's loaders have no business there.
    execArgv: ['--disable-warning=ExperimentalWarning'],
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    detached: true,
  });
  const listening = new Promise<void>((resolve, reject) => {
    child.once('message', (message: { failed?: string }) => {
      if (message.failed === undefined) resolve();
      else reject(new Error(message.failed));
    });
  });
  // Settled by whoever asks first; the race in superviseServer may be over by then.
  listening.catch(() => {});
  const server = await superviseServer(child, {
    port: options.port,
    readyMs: options.readyMs,
    listening,
    knowsItsPid: false,
  });
  child.channel?.unref();
  return server;
}
