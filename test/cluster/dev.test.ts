/** The first run: `sluice dev` prints a curl that works when pasted, and Ctrl-C leaves nothing. */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { eventually } from './world.ts';

const run = promisify(execFile);
const cli = new URL('../../src/cli.ts', import.meta.url).pathname;

interface Dev {
  readonly child: ChildProcess;
  readonly text: string;
  /** Of the gateway, its gRPC, Redis and the two replicas. */
  readonly ports: readonly string[];
}

async function startDev(command: string, args: string[], env: NodeJS.ProcessEnv): Promise<Dev> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-dev-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const child = spawn(command, args, {
    cwd: folder,
    env: { PATH: process.env.PATH, PORT: '0', GRPC_PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (line.startsWith('Ctrl-C')) break;
  }
  const text = lines.join('\n');
  const ports = new Set([...text.matchAll(/127\.0\.0\.1:(\d+)/g)].map(([, port]) => port ?? ''));
  expect(ports.size).toBe(5);
  return { child, text, ports: [...ports] };
}

async function isClosed(port: string): Promise<boolean> {
  const socket = connect({ host: '127.0.0.1', port: Number(port) });
  const open = await once(socket, 'connect').then(
    () => true,
    () => false,
  );
  socket.destroy();
  return !open;
}

test('sluice dev serves the curl it prints, and Ctrl-C stops the whole of it', async () => {
  const { child, text, ports } = await startDev(process.execPath, [cli, 'dev'], {});
  expect(text).toContain('mistral: at most 4 at once on mistral-prompt');
  const curl = text.split('\n').find((line) => line.includes('/v1/chat/completions')) ?? '';
  const { stdout } = await run('sh', ['-c', curl]);
  expect(JSON.parse(stdout)).toMatchObject({ object: 'chat.completion', model: 'mistral' });

  const exit = once(child, 'exit');
  child.kill('SIGINT');
  expect(await exit).toEqual([0, null]);
  expect(await Promise.all(ports.map(isClosed))).toEqual([true, true, true, true, true]);
}, 30_000);

test('under npm, sluice dev ends with the npm that started it', async () => {
  const shell = `${process.execPath} ${cli} dev; exit`;
  const { child, ports } = await startDev('sh', ['-c', shell], { npm_lifecycle_event: 'start' });
  child.kill('SIGKILL');
  for (const port of ports) await eventually(`${port} is closed`, () => isClosed(port), 10_000);
}, 30_000);
