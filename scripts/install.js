// Runs before `npm start` and `npm test` (prestart, pretest): installs what is missing.
// Plain JavaScript, because on a fresh clone it is the machine's own Node that runs it, from 18 on;
// everything after it runs on the Node 24 that the npm package `node` puts first on the PATH.
// Does nothing, and needs no network, when node_modules is what package-lock.json says.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const nodeMajorNeeded = 24;
const root = fileURLToPath(new URL('..', import.meta.url));

const reason = whyInstall();
if (reason !== undefined) {
  console.log(`sluice: ${reason}, running npm ci (about a minute) ...`);
  install();
  const still = whyInstall();
  if (still !== undefined) fail(`npm ci succeeded, but ${still}.`);
}
requireNode();

/** Why an install is due, or undefined when node_modules holds what the lock file names. */
function whyInstall() {
  const wanted = packagesOf(join(root, 'package-lock.json'));
  if (wanted === undefined)
    fail('package-lock.json is missing or unreadable: is this a whole clone?');
  // npm writes this file last, so an install that was cut short has none.
  const installed = packagesOf(join(root, 'node_modules', '.package-lock.json'));
  if (installed === undefined) return 'dependencies are not installed';
  for (const [path, { version, integrity, optional, devOptional }] of Object.entries(wanted)) {
    if (path === '') continue;
    const found = installed[path];
    // Optional ones are for other platforms, most of them.
    if (found === undefined && !optional && !devOptional) return `${path} is missing`;
    if (found !== undefined && (found.version !== version || found.integrity !== integrity)) {
      return `${path} is not at ${version}`;
    }
  }
  return undefined;
}

function packagesOf(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages;
  } catch {
    return undefined;
  }
}

function install() {
  // Under `npm start` npm says where it is and which Node runs it. That Node stays; the one in
  // node_modules would delete itself halfway.
  const { npm_execpath: npm, npm_node_execpath: node = process.execPath } = process.env;
  const options = ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'];
  const done = npm?.endsWith('.js')
    ? spawnSync(node, [npm, ...options], { cwd: root, stdio: 'inherit' })
    : spawnSync('npm', options, {
        cwd: root,
        stdio: 'inherit',
        shell: process.platform === 'win32',
      });
  if (done.status === 0) return;
  const how =
    done.error?.message ?? (done.signal ? `ended by ${done.signal}` : `exit code ${done.status}`);
  fail(
    `npm ci failed (${how}); what npm said stands above.`,
    'The first run needs the npm registry (see `npm config get registry`); later ones do not.',
  );
}

/** Checks that what follows in this npm script will run on Node 24 or newer, else says what to do. */
function requireNode() {
  if (majorOf(process.version) >= nodeMajorNeeded) return;
  const bundled = join(root, 'node_modules', 'node', 'bin', 'node');
  if (existsSync(bundled)) {
    const answer = spawnSync(bundled, ['--version'], { encoding: 'utf8' });
    if (majorOf(answer.stdout ?? '') >= nodeMajorNeeded) return;
  }
  fail(
    `Sluice needs Node ${nodeMajorNeeded} or newer and this is ${process.version}. The npm package`,
    '`node` brings one, but its install script did not run: install scripts are off here, or npm wants',
    'them approved. Do one of these, then run the command again:',
    '  npm rebuild node --ignore-scripts=false --foreground-scripts    (runs that one install script)',
    '  npm install-scripts approve node && npm rebuild node            (npm 11.18+, if it asks for approval)',
    `  install Node ${nodeMajorNeeded} from https://nodejs.org`,
  );
}

function majorOf(version) {
  return Number(/^v(\d+)\./.exec(version)?.[1] ?? 0);
}

function fail(...lines) {
  console.error(`\nsluice: ${lines.join('\n')}\n`);
  process.exit(1);
}
