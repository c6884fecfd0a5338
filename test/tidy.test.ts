import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import {
  type File,
  importsOf,
  keepsLayers,
  linesMax,
  locksEveryPlatform,
  type Rule,
  readsEnvironmentInConfig,
  skipsNoTest,
  staysInside,
  staysShort,
} from './support/tidy-rules.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const notOurs = new Set(['node_modules', '.git', '.sluice', 'coverage', 'dist', 'output']);
const isText = /\.(ts|js|lua|json|ya?ml|md|html|css|svg|sh|proto)$|(^|\/)[^./]+$/;

function repository(): File[] {
  const walk = (folder: string): string[] =>
    readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
      if (notOurs.has(entry.name)) return [];
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return walk(path);
      return entry.isFile() ? [path] : [];
    });
  return (
    walk(root)
      .map((path) => ({ absolute: path, path: relative(root, path).split(sep).join('/') }))
      // This file quotes what breaks the rules.
      .filter(({ path }) => isText.test(path) && path !== 'test/tidy.test.ts')
      .map(({ absolute, path }) => ({ path, text: readFileSync(absolute, 'utf8') }))
  );
}

const lock = (packages: object) => JSON.stringify({ packages });
const optional = { optionalDependencies: { 'b-darwin': '1.0.0' } };

/** For each rule, files that it must find fault with, and files that it must let pass. */
const rules: { name: string; rule: Rule; bad: File[]; good: File[] }[] = [
  {
    name: 'A part imports only what the table of layers allows',
    rule: keepsLayers,
    bad: [
      { path: 'src/policy/a.ts', text: "import { b } from '../admission/b.ts';" },
      { path: 'src/policy/a.ts', text: "import type { B } from '../config.ts';" },
      { path: 'src/admission/a.ts', text: "import {\n  b,\n} from '../stream/b.ts';" },
      { path: 'src/stream/a.ts', text: "export * from '../pool/b.ts';" },
      { path: 'src/pool/a.ts', text: "const b = await import('../dispatch/b.ts');" },
      { path: 'src/dispatch/a.ts', text: "import '../policy/b.ts';" },
      { path: 'src/gateway/a.ts', text: "import { b } from '../telemetry/index.ts';" },
      { path: 'workers/a.ts', text: "import { b } from '../src/main.ts';" },
      { path: 'src/simulator/a.ts', text: "import { b } from '../pool/b.ts';" },
      { path: 'src/client/a.ts', text: "import { SluiceError } from '../errors.ts';" },
      { path: 'src/errors.ts', text: "import { b } from './config.ts';" },
      { path: 'src/document.ts', text: "import { b } from './config.ts';" },
      { path: 'src/redis.ts', text: "import { b } from './admission/b.ts';" },
      { path: 'src/node.ts', text: "import { b } from './gateway/b.ts';" },
      { path: 'src/config.ts', text: "import { b } from './policy/b.ts';" },
      { path: 'src/pool/a.ts', text: "import { b } from '../../test/support/b.ts';" },
      { path: 'src/newcomer/a.ts', text: '' },
    ],
    good: [
      { path: 'src/policy/a.ts', text: "import { SluiceError } from '../errors.ts';" },
      { path: 'src/policy/a.ts', text: "import { b } from './b.ts';\nimport { z } from 'yaml';" },
      { path: 'src/gateway/routes/a.ts', text: "import { b } from '../../stream/b.ts';" },
      { path: 'workers/a.ts', text: "import { b } from '../src/dispatch/b.ts';" },
      { path: 'src/main.ts', text: "import { b } from './telemetry/b.ts';" },
      { path: 'test/a.test.ts', text: "import { b } from '../src/main.ts';" },
    ],
  },
  {
    name: 'The environment is read by the config alone',
    rule: readsEnvironmentInConfig,
    bad: [
      { path: 'src/gateway/a.ts', text: 'const port = process.env.PORT;' },
      { path: 'src/main.ts', text: "const { PORT } = process['env'];" },
      { path: 'workers/a.ts', text: 'const { PORT } = process.env;' },
    ],
    good: [
      { path: 'src/config.ts', text: 'const port = process.env.PORT;' },
      { path: 'src/cli.ts', text: 'loadConfig({ env: process.env });' },
      { path: 'test/a.test.ts', text: 'process.env.REDIS_URL' },
    ],
  },
  {
    name: 'Every test runs',
    rule: skipsNoTest,
    bad: [
      // Texts for the rule to find, not tests of ours: nothing is skipped or alone here.
      { path: 'test/a.test.ts', text: "test.only('a', () => {});" }, // a text: no test runs alone
      { path: 'test/policy/a.test.ts', text: "\ndescribe.skip('a', () => {});" },
    ],
    good: [{ path: 'test/a.test.ts', text: "test.runIf(linux)('a', () => {});" }],
  },
  {
    name: `A source file has at most ${linesMax} lines`,
    rule: staysShort,
    bad: [
      { path: 'src/a.ts', text: 'x;\n'.repeat(linesMax + 1) },
      { path: 'lua/a.lua', text: 'x()\n'.repeat(linesMax + 1) },
    ],
    good: [
      { path: 'src/a.ts', text: 'x;\n'.repeat(linesMax) },
      { path: 'package-lock.json', text: 'x\n'.repeat(linesMax + 1) },
    ],
  },
  {
    name: 'Nothing points outside the repository',
    rule: staysInside,
    bad: [
      { path: 'README.md', text: 'see [design](../elsewhere/design.md)' },
      { path: 'docs/a.md', text: '../../elsewhere' },
      { path: 'src/a.ts', text: '// as in /work/main/a.ts' },
    ],
    good: [
      { path: 'docs/a.md', text: '[x](../README.md) https://example.com/work/a' },
      { path: 'src/policy/a.ts', text: "import { b } from '../errors.ts';" },
    ],
  },
  {
    name: 'The lock file names the packages of every platform',
    rule: locksEveryPlatform,
    bad: [{ path: 'package-lock.json', text: lock({ '': {}, 'node_modules/b': optional }) }],
    good: [
      {
        path: 'package-lock.json',
        text: lock({ '': {}, 'node_modules/b': optional, 'node_modules/b-darwin': {} }),
      },
      {
        path: 'package-lock.json',
        text: lock({ 'node_modules/a/node_modules/b': optional, 'node_modules/b-darwin': {} }),
      },
    ],
  },
];

const files = repository();

test('The rules look at the whole repository', () => {
  const paths = files.map(({ path }) => path);
  expect(paths).toContain('src/redis-server/index.ts');
  expect(paths).toContain('package-lock.json');
  expect(paths).toContain('.ci/run');
  expect(paths.filter((path) => path.includes('node_modules'))).toEqual([]);
});

test('Imports are found in each of their forms', () => {
  const text = [
    "import a from 'a';",
    "import type { B } from 'b';",
    "import {\n  c,\n  type C,\n} from 'c';",
    "export { d } from 'd';",
    "export * as e from 'e';",
    "import 'f';",
    "type G = import('g').G;",
    "const h = await import('h');",
  ].join('\n');
  expect(importsOf(text).toSorted()).toEqual(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']);
});

for (const { name, rule, bad, good } of rules) {
  test(name, () => {
    expect(files.flatMap(rule)).toEqual([]);
  });

  test(`${name}: the rule can fail, and does not when it should not`, () => {
    for (const file of bad) expect.soft(rule(file), file.text.slice(0, 80)).not.toEqual([]);
    for (const file of good) expect.soft(rule(file), file.text.slice(0, 80)).toEqual([]);
  });
}
