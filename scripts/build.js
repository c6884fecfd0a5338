// node scripts/build.js: what npm packs, in dist/. A clone runs src/ as it is; Node does not strip
// types below node_modules, so there it has to be JavaScript.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');
/** The part that other programs import, and so the one whose types they need. */
const client = join(dist, 'src', 'client');
/** What the code reads at run time, by a path that is relative to its own. */
const readAtRunTime = ['lua', 'proto'];

rmSync(dist, { recursive: true, force: true });
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
const project = join(root, 'tsconfig.build.json');
const { status } = spawnSync(process.execPath, [tsc, '-p', project], { stdio: 'inherit' });
if (status !== 0) process.exit(status ?? 1);

for (const file of filesOf(dist).filter((name) => name.endsWith('.d.ts'))) {
  if (!file.startsWith(client)) rmSync(file);
  // tsc rewrites imports in code, and leaves those in declarations.
  else writeFileSync(file, readFileSync(file, 'utf8').replace(/(from '\.[^']*)\.ts'/g, "$1.js'"));
}
for (const folder of readAtRunTime.filter((name) => existsSync(join(root, name)))) {
  cpSync(join(root, folder), join(dist, folder), { recursive: true });
}
const { name, version, type } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
writeFileSync(join(dist, 'package.json'), `${JSON.stringify({ name, version, type }, null, 2)}\n`);

function filesOf(folder) {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name));
}
