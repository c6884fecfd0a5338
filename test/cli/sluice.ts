/** `sluice ...` as people and scripts run it, to its end. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

const cli = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));
/** Starts are what these tests spend their time on: half of it is compiling the same files again. */
const compiled = fileURLToPath(new URL('../../node_modules/.cache/sluice', import.meta.url));

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface RunOptions {
  /** SLUICE_URL */
  readonly url?: string;
  readonly env?: Record<string, string>;
  /** Standard input; empty otherwise. */
  readonly input?: string;
  readonly cwd?: string;
}

/** Starts it; the child's `kill` is what a signal test needs. */
export function startSluice(args: readonly string[], options: RunOptions = {}) {
  const { url, env = {}, input = '', cwd } = options;
  const child = spawn(process.execPath, [cli, ...args], {
    env: {
      PATH: process.env.PATH,
      NODE_COMPILE_CACHE: compiled,
      ...(url !== undefined && { SLUICE_URL: url }),
      ...env,
    },
    ...(cwd !== undefined && { cwd }),
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const ended = Promise.all([once(child, 'close'), text(child.stdout), text(child.stderr)]).then(
    ([[code], out, err]): Ran => ({ code: code as number | null, out, err }),
  );
  return { child, ended };
}

export function sluice(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return startSluice(args, options).ended;
}

/** A folder with these files, gone after the test. Objects are written as JSON, which is YAML. */
export async function folderWith(
  files: Record<string, string | Buffer | object> = {},
): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-cli-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    const isRaw = typeof content === 'string' || Buffer.isBuffer(content);
    const written = isRaw ? content : JSON.stringify(content);
    await writeFile(join(folder, name), written);
  }
  return folder;
}
