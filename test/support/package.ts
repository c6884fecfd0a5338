/** The package as others get it: packed, put into a project of its own, and used from there. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { onTestFinished } from 'vitest';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const ownModules = join(root, 'node_modules');

export interface Project {
  readonly folder: string;
  /** Runs a program in it: exit code 0 or an error with all that it said. */
  run(program: string, args: readonly string[], env?: NodeJS.ProcessEnv): Promise<string>;
  /** Starts `node_modules/.bin/sluice` and waits for the first line that fits. */
  start(args: readonly string[], env: NodeJS.ProcessEnv, line: RegExp): Promise<Started>;
}

interface Started {
  /** What the pattern's first group caught. */
  readonly caught: string;
  readonly text: string;
}

/** `npm pack` of this clone, into a folder. Returns the path of the tarball. */
export async function pack(folder: string): Promise<string> {
  // Whatever npm is set to: without prepack there is nothing in it.
  const args = ['pack', '--json', '--ignore-scripts=false', '--pack-destination', folder];
  await run('npm', args, { cwd: root, timeout: 120_000 });
  const [name = ''] = await readdir(folder);
  return join(folder, name);
}

/** A project with the package as npm installs it, from the registry. */
export async function installed(tarball: string): Promise<Project> {
  const folder = await newProject();
  const quiet = ['--ignore-scripts', '--prefer-offline', '--omit=dev', '--no-audit', '--no-fund'];
  await run('npm', ['install', ...quiet, tarball], { cwd: folder, timeout: 600_000 });
  await addTypes(folder);
  return projectIn(folder);
}

/**
 * The same without the registry: the package is unpacked, and each of its dependencies, and nothing
 * else, is a link to the clone's.
 */
export async function unpacked(tarball: string): Promise<Project> {
  const folder = await newProject();
  const own = join(folder, 'node_modules', 'sluice');
  await mkdir(own, { recursive: true });
  await run('tar', ['-xzf', tarball, '-C', own, '--strip-components=1']);
  const { dependencies, bin } = JSON.parse(
    await readFile(join(own, 'package.json'), 'utf8'),
  ) as Record<'dependencies' | 'bin', Record<string, string>>;
  for (const name of Object.keys(dependencies)) await link(folder, name);
  await mkdir(join(folder, 'node_modules', '.bin'));
  for (const [name, path] of Object.entries(bin)) {
    await chmod(join(own, path), 0o755);
    await symlink(join(own, path), join(folder, 'node_modules', '.bin', name));
  }
  await addTypes(folder);
  return projectIn(folder);
}

function projectIn(folder: string): Project {
  const cli = join(folder, 'node_modules', '.bin', 'sluice');
  return {
    folder,
    run: async (program, args, env = {}) => {
      const { PATH } = process.env;
      const options = { cwd: folder, timeout: 60_000, env: { PATH, ...env } };
      const { stdout } = await run(program, [...args], options);
      return stdout;
    },
    start: (args, env, line) => start(folder, [cli, ...args], env, line),
  };
}

async function start(
  cwd: string,
  args: string[],
  env: NodeJS.ProcessEnv,
  line: RegExp,
): Promise<Started> {
  const child = spawn(process.execPath, args, { cwd, env, stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, 'exit');
    child.kill('SIGTERM');
    await exit;
  });
  let text = '';
  for await (const said of createInterface({ input: child.stdout })) {
    text += `${said}\n`;
    const caught = line.exec(said)?.[1];
    if (caught !== undefined) return { caught, text };
  }
  throw new Error(`it ended without saying ${line}: ${text}`);
}

async function newProject(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-package-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, 'package.json'), '{"name": "project", "type": "module"}');
  return folder;
}

/** What a project in TypeScript has anyway. */
async function addTypes(folder: string): Promise<void> {
  await link(folder, '@types/node');
  await link(folder, 'undici-types');
}

async function link(folder: string, name: string): Promise<void> {
  const place = join(folder, 'node_modules', name);
  await mkdir(dirname(place), { recursive: true });
  await rm(place, { recursive: true, force: true });
  await symlink(join(ownModules, name), place);
}
