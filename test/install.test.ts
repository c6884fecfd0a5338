import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';

const script = fileURLToPath(new URL('../scripts/install.js', import.meta.url));

const lock = (packages: object) => JSON.stringify({ packages: { '': { name: 'x' }, ...packages } });
const wanted = {
  'node_modules/a': { version: '1.0.0', integrity: 'sha512-a' },
  'node_modules/a-darwin': { version: '1.0.0', optional: true },
};
const installed = { 'node_modules/a': wanted['node_modules/a'] };

/** A clone with the script and a stand-in for npm that notes its arguments and installs `brings`. */
async function clone(options: { locked?: object; present?: object; brings?: object }) {
  const dir = await mkdtemp(join(tmpdir(), 'sluice-install-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  await mkdir(join(dir, 'scripts'));
  await mkdir(join(dir, 'node_modules'));
  await copyFile(script, join(dir, 'scripts', 'install.js'));
  await writeFile(join(dir, 'package.json'), '{"type": "module"}');
  if (options.locked) await writeFile(join(dir, 'package-lock.json'), lock(options.locked));
  const hidden = join(dir, 'node_modules', '.package-lock.json');
  if (options.present) await writeFile(hidden, lock(options.present));
  const npm = join(dir, 'npm.js');
  await writeFile(
    npm,
    `import { writeFileSync } from 'node:fs';
    writeFileSync(${JSON.stringify(join(dir, 'asked'))}, process.argv.slice(2).join(' '));
    ${options.brings ? `writeFileSync(${JSON.stringify(hidden)}, ${JSON.stringify(lock(options.brings))});` : 'process.exit(7);'}`,
  );
  const run = () =>
    new Promise<{ code: number; said: string }>((resolve) => {
      execFile(
        process.execPath,
        [join(dir, 'scripts', 'install.js')],
        { env: { npm_execpath: npm, npm_node_execpath: process.execPath } },
        (error, stdout, stderr) =>
          resolve({ code: error === null ? 0 : Number(error.code), said: stdout + stderr }),
      );
    });
  return { run, asked: () => readFile(join(dir, 'asked'), 'utf8').catch(() => undefined) };
}

test('What is installed as the lock file says is left alone, without a word and without npm', async () => {
  const { run, asked } = await clone({ locked: wanted, present: installed });
  expect(await run()).toEqual({ code: 0, said: '' });
  expect(await asked()).toBeUndefined();
});

test.each([
  ['nothing is installed', undefined],
  ['a package is missing', {}],
  ['a package is at another version', { 'node_modules/a': { version: '0.9.0' } }],
])('When %s, npm ci runs once, with the development dependencies', async (_, present) => {
  const { run, asked } = await clone({
    locked: wanted,
    brings: installed,
    ...(present ? { present } : {}),
  });
  const first = await run();
  expect(first.code).toBe(0);
  expect(first.said.trim().split('\n')).toHaveLength(1);
  expect(await asked()).toMatch(/^ci --include=dev /);
  expect(await run()).toEqual({ code: 0, said: '' });
});

test('An npm ci that fails, or does not bring what is locked, is an error that says so', async () => {
  const failing = await clone({ locked: wanted });
  expect(await failing.run()).toMatchObject({
    code: 1,
    said: expect.stringContaining('npm ci failed (exit code 7)'),
  });
  const incomplete = await clone({ locked: wanted, brings: {} });
  expect(await incomplete.run()).toMatchObject({
    code: 1,
    said: expect.stringContaining('node_modules/a is missing'),
  });
});

test('Without a lock file it is an error, not an install of whatever is newest', async () => {
  const { run, asked } = await clone({ present: installed });
  expect(await run()).toMatchObject({
    code: 1,
    said: expect.stringContaining('package-lock.json is missing'),
  });
  expect(await asked()).toBeUndefined();
});
