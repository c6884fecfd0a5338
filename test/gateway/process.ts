/** `sluice ...` as a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished } from 'vitest';

const cli = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));

export interface SluiceProcess {
  /** Standard output and error so far. */
  output(): string;
  /** The exit code, once it has ended; null when a signal ended it. */
  readonly ended: Promise<number | null>;
  /** Waits for a text and returns what the pattern's first group caught. */
  says(pattern: RegExp): Promise<string>;
  signal(name: NodeJS.Signals): void;
}

/** Starts it in a folder of its own, with nothing in its environment but what is given. */
export async function startSluice(
  args: readonly string[],
  options: { env?: Record<string, string>; config?: object | string },
): Promise<SluiceProcess> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-process-'));
  const { config } = options;
  if (config !== undefined) {
    const text = typeof config === 'string' ? config : JSON.stringify(config);
    await writeFile(join(folder, 'sluice.yaml'), text);
  }
  const env = { PATH: process.env.PATH ?? '', ...options.env };
  const child: ChildProcess = spawn(process.execPath, [cli, ...args], { cwd: folder, env });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const ended = once(child, 'close').then(([code]) => code as number | null);
  onTestFinished(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await ended;
    await rm(folder, { recursive: true, force: true });
  });
  return {
    output: () => output,
    ended,
    says: async (pattern) => {
      const found = () => pattern.exec(output)?.[1];
      await expect.poll(found, { timeout: 20_000, interval: 20 }).toBeDefined();
      return found() ?? '';
    },
    signal: (name) => {
      child.kill(name);
    },
  };
}
