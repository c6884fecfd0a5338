/** The first run: `sluice dev` prints a curl that works when pasted, and Ctrl-C leaves nothing. */

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';

const run = promisify(execFile);
const cli = new URL('../../src/cli.ts', import.meta.url).pathname;

test('sluice dev serves the curl it prints, and stops whole', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-dev-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const dev = spawn(process.execPath, [cli, 'dev'], {
    cwd: folder,
    env: { PATH: process.env.PATH, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => {
    dev.kill('SIGKILL');
  });
  const lines: string[] = [];
  for await (const line of createInterface({ input: dev.stdout })) {
    lines.push(line);
    if (line.startsWith('Ctrl-C')) break;
  }
  const text = lines.join('\n');
  expect(text).toContain('mistral: at most 4 at once on mistral-prompt');
  const curl = lines.find((line) => line.includes('/v1/chat/completions'))?.trim() ?? '';
  const { stdout } = await run('sh', ['-c', curl]);
  expect(JSON.parse(stdout)).toMatchObject({ object: 'chat.completion', model: 'mistral' });

  const ports = [...text.matchAll(/127\.0\.0\.1:(\d+)/g)].map(([, port]) => port);
  const exit = once(dev, 'exit');
  dev.kill('SIGINT');
  expect(await exit).toEqual([0, null]);
  // Gateway, Redis and two replicas: none of them listens any more.
  expect(new Set(ports).size).toBe(4);
  for (const port of new Set(ports)) {
    await expect(fetch(`http://127.0.0.1:${port}/`)).rejects.toThrow('fetch failed');
  }
}, 30_000);
