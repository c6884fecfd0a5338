/**
 * Rules about the repository's own text, as functions from a file to what is wrong with it, so that
 * each can be shown to fail. They read text, not a syntax tree: with TypeScript 7 the tools that
 * check layers through the compiler's API see no modules and pass without looking.
 */
import { dirname, join, normalize } from 'node:path/posix';

export interface File {
  /** From the root, with slashes. */
  path: string;
  text: string;
}
export type Rule = (file: File) => string[];

const core = ['policy', 'admission', 'dispatch', 'stream', 'pool', 'protocols'];
const leaves = ['errors', 'config', 'diagnostics', 'document', 'duration', 'redis'];
const joined = [...leaves, ...core];

/** Which parts of ours each part may import besides itself. */
const layers: Record<string, readonly string[] | 'all'> = {
  // Leaves: at the bottom, one above the other.
  errors: [],
  duration: [],
  document: ['errors', 'duration'],
  diagnostics: [],
  redis: ['errors'],
  config: ['errors', 'document'],
  // The core: six parts that do not know each other.
  policy: ['errors', 'document'],
  admission: ['errors'],
  dispatch: ['errors'],
  stream: ['errors'],
  pool: ['errors'],
  protocols: ['errors'],
  // Stand-ins for what production has already.
  'redis-server': ['errors'],
  simulator: ['errors'],
  // Whoever joins the core; telemetry listens to it and is never imported by it.
  node: joined,
  gateway: [...joined, 'node'],
  workers: [...joined, 'node'],
  telemetry: joined,
  // What other programs import: it knows nothing but HTTP.
  client: [],
  main: 'all',
  cli: 'all',
};

/** Data flows one way: a part imports only what the table allows, types and dynamic imports too. */
export const keepsLayers: Rule = ({ path, text }) => {
  const part = partOf(path);
  if (part === undefined) return [];
  const allowed = layers[part];
  if (allowed === undefined) return [`${path}: part "${part}" is not in the table of layers`];
  if (allowed === 'all') return [];
  return importsOf(text).flatMap((specifier) => {
    if (!specifier.startsWith('.')) return [];
    const target = normalize(join(dirname(path), specifier));
    const other = partOf(target);
    if (other === undefined) return [`${path}: ${part} imports ${target}, which is no part`];
    if (other === part || allowed.includes(other)) return [];
    return [`${path}: ${part} may not import ${other} (${specifier})`];
  });
};

/** `src/policy/x.ts` and `src/policy.ts` are `policy`; `workers/x.ts` is `workers`. */
function partOf(path: string): string | undefined {
  if (!/\.[cm]?[jt]s$/.test(path)) return undefined;
  if (path.startsWith('workers/')) return 'workers';
  return /^src\/([^/.]+)/.exec(path)?.[1];
}

/** Specifiers of static, type-only, side-effect, re-exporting and dynamic imports. */
export function importsOf(text: string): string[] {
  const patterns = [
    /^[ \t]*(?:import|export)\b[^'";]*?\bfrom\s*['"]([^'"]+)['"]/gm,
    /^[ \t]*import\s*['"]([^'"]+)['"]/gm,
    /\bimport\s*\(\s*['"`]([^'"`]+)['"`]/g,
  ];
  return patterns.flatMap((pattern) => [...text.matchAll(pattern)].map((match) => match[1] ?? ''));
}

/** Settings come from the config, checked once; only the command line hands the environment to it. */
export const readsEnvironmentInConfig: Rule = ({ path, text }) => {
  if (!/^(src|workers)\//.test(path) || /^src\/(config[./]|cli\.ts$)/.test(path)) return [];
  return linesWith(path, text, /\bprocess\s*(\.|\?\.)\s*env\b|\bprocess\[/, 'reads process.env');
};

/** A test that does not run protects nothing. (`runIf` and `skipIf` say when and are fine.) */
export const skipsNoTest: Rule = ({ path, text }) => {
  if (!path.endsWith('.test.ts')) return [];
  const pattern = /\b(?:test|it|describe|suite|bench)(?:\.\w+)*\.(?:skip|only|todo|fails)\b/;
  return linesWith(path, text, pattern, 'skips or singles out a test');
};

export const linesMax = 400;

/** A file is read in one sitting; a Lua step above all, since nobody steps through it in a debugger. */
export const staysShort: Rule = ({ path, text }) => {
  if (!/^(src|workers|lua|bench)\/.*\.(ts|js|lua)$/.test(path)) return [];
  const lines = text.trimEnd().split('\n').length;
  return lines > linesMax
    ? [`${path}: ${lines} lines, at most ${linesMax}: look for the seam`]
    : [];
};

/** The repository stands alone: no path above its root, none of one developer's machine. */
export const staysInside: Rule = ({ path, text }) => {
  const problems = linesWith(path, text, /(?<![\w.:/])\/(?:work|Users)\/\w/, 'names a local path');
  for (const [, climb = ''] of text.matchAll(/(?<![\w./])((?:\.\.\/)+[\w.-]+)/g)) {
    if (normalize(join(dirname(path), climb)).startsWith('..')) {
      problems.push(`${path}: ${climb} leaves the repository`);
    }
  }
  return problems;
};

interface LockEntry {
  optionalDependencies?: Record<string, string>;
}

/**
 * `npm ci` refuses a lock file without the optional packages of every platform, and npm writes such
 * a file when it adds to an existing node_modules, or when the registry does not serve them all.
 */
export const locksEveryPlatform: Rule = ({ path, text }) => {
  if (path !== 'package-lock.json') return [];
  const { packages } = JSON.parse(text) as { packages: Record<string, LockEntry> };
  return Object.entries(packages).flatMap(([from, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies)
      .filter((name) => !placesOf(from, name).some((place) => packages[place] !== undefined))
      .map((name) => `${path}: no entry for ${name}, which ${from} may need on another platform`),
  );
};

/** Where Node looks for a package, nearest first. */
function placesOf(from: string, name: string): string[] {
  const places = [`${from === '' ? '' : `${from}/`}node_modules/${name}`];
  for (let at = from; at !== ''; ) {
    at = at.slice(0, Math.max(0, at.lastIndexOf('/node_modules/')));
    places.push(`${at === '' ? '' : `${at}/`}node_modules/${name}`);
  }
  return places;
}

function linesWith(path: string, text: string, pattern: RegExp, what: string): string[] {
  return text
    .split('\n')
    .flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${what}`] : []));
}
