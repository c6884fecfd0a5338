// node scripts/complete-lock.js: run it after each change of the dependencies.
//
// npm leaves optional packages of other platforms out of package-lock.json when the registry in use
// does not serve them, and `npm ci` then refuses the lock everywhere. This adds an entry for each,
// without an integrity hash: npm skips those of other platforms and checks the rest by name.
import { readFileSync, writeFileSync } from 'node:fs';

const file = new URL('../package-lock.json', import.meta.url);
const lock = JSON.parse(readFileSync(file, 'utf8'));
const platform =
  /-(android|darwin|freebsd|linux|openharmony|win32)-(x64|arm64|arm|ia32|ppc64|riscv64|s390x)(?:-(\w+))?$/;

/** Where npm looks for a dependency of a package: in its own node_modules, then in each above. */
function places(path, name) {
  const found = [];
  for (let up = path; up !== ''; up = up.slice(0, Math.max(0, up.lastIndexOf('/node_modules/')))) {
    found.push(`${up}/node_modules/${name}`);
  }
  return [...found, `node_modules/${name}`];
}

const added = {};
for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    if (places(path, name).some((place) => place in lock.packages)) continue;
    const [, os, cpu, abi] = platform.exec(name) ?? [];
    if (os === undefined || !/^\d+\.\d+\.\d+[-\w.]*$/.test(version)) {
      console.error(`cannot complete ${name}@${version}, which ${path} may use`);
      process.exitCode = 1;
      continue;
    }
    const libc = abi?.startsWith('musl') ? 'musl' : abi?.startsWith('gnu') ? 'glibc' : undefined;
    added[`node_modules/${name}`] = {
      version,
      cpu: [cpu],
      ...(entry.dev && { dev: true }),
      ...(libc && { libc: [libc] }),
      optional: true,
      os: [os],
    };
  }
}
const { '': root, ...known } = lock.packages;
const all = Object.entries({ ...known, ...added });
all.sort(([a], [b]) => a.localeCompare(b, 'en'));
lock.packages = { '': root, ...Object.fromEntries(all) };
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`added ${Object.keys(added).length} packages of other platforms`);
