import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Redis } from 'ioredis';

/**
 * Loads the Lua steps and runs them. A step names the libraries it needs in one line, `-- use step
 * limiters tree`; they are put before it, one level deep, in that order, and all of it becomes a
 * function library of Redis 7: loaded once, so that a call does not have to build some 150 closures
 * anew as a script does. Its name carries a hash of its text, so versions of a rolling deploy live side
 * by side and one never calls the other's code.
 */

const luaFolder = new URL('../../lua/', import.meta.url);

/** Files of `lua/`: see their heads. */
export const steps = [
  'submit',
  'begin',
  'renew',
  'finish',
  'cancel',
  'sweep',
  'configure',
  'replicas',
  'dead_letters',
  'rekey',
  'inspect',
  'claim',
  'cache',
] as const;
export type Step = (typeof steps)[number];

/** One atomic step, ready to run. */
export interface Script {
  readonly step: string;
  /** Of the library, and of the function in it. */
  readonly name: string;
  readonly source: string;
  /** For each line of `source`, the file and line it came from. */
  readonly lines: readonly string[];
}

/** Tests only: a change to the expanded source of a step, to show what the change breaks. */
export type Patch = (step: string, source: string) => string;

/**
 * What follows this line in a library is its own: it becomes a block, and its names end there. One
 * function of Lua can have 200 local names.
 */
const privateLine = '-- private';

/** Reads `lua/<step>.lua` and what it uses. Throws if a file is missing. */
export function loadScript(step: string, patch?: Patch): Script {
  const own = readLua(`${step}.lua`);
  const use = own.findIndex((line) => line.startsWith('-- use '));
  const libraries = own[use]?.slice('-- use '.length).split(' ') ?? [];
  const text: string[] = ['#!lua name='];
  const lines = [`lua/${step}.lua:1`];
  const add = (file: string, code: string, at: number) => {
    text.push(code);
    lines.push(`lua/${file}:${at + 1}`);
  };
  for (const file of libraries.map((library) => `lib/${library}.lua`)) {
    const content = readLua(file);
    const isScoped = content.includes(privateLine);
    for (const [index, line] of content.entries())
      add(file, line === privateLine ? 'do' : line, index);
    if (isScoped) add(file, 'end', content.length - 1);
  }
  const file = `${step}.lua`;
  add(file, 'local function run()', use);
  for (const [index, line] of own.entries()) if (index > use) add(file, line, index);
  add(file, 'end', own.length - 1);
  // Steps that free memory also run when Redis is full.
  const flags = own[0] === '#!lua flags=allow-oom' ? "'allow-oom'" : '';
  text.push(
    `redis.register_function{function_name='NAME', flags={${flags}}, callback=function(keys, argv)`,
    '  start(keys, argv)',
    '  return run()',
    'end}',
  );
  const expanded = text.join('\n');
  const source = patch?.(step, expanded) ?? expanded;
  const hash = createHash('sha1').update(source).digest('hex').slice(0, 12);
  const name = `sluice_${step}_${hash}`;
  const named = source.replace('#!lua name=', `#!lua name=${name}`).replace("'NAME'", `'${name}'`);
  return { step, name, source: named, lines };
}

function readLua(file: string): string[] {
  return readFileSync(new URL(file, luaFolder), 'utf8').trimEnd().split('\n');
}

/**
 * Runs a step. A server that does not know its library (new, flushed) is given all of them: once it is
 * full it would take none.
 * @throws what ioredis throws; an error inside the step names its Lua file and line.
 */
export async function runScript(
  redis: Redis,
  step: string,
  scripts: ReadonlyMap<string, Script>,
  keys: readonly string[],
  args: readonly string[],
): Promise<string> {
  const script = scripts.get(step);
  if (!script) throw new Error(`no step ${step}`);
  const call = async () => String(await redis.fcall(script.name, keys.length, ...keys, ...args));
  try {
    try {
      return await call();
    } catch (error) {
      if (!isError(error, 'Function not found')) throw error;
      for (const one of scripts.values()) await load(redis, one);
      return await call();
    }
  } catch (error) {
    throw withLuaLine(error, script);
  }
}

async function load(redis: Redis, script: Script): Promise<void> {
  try {
    await redis.function('LOAD', script.source);
  } catch (error) {
    // Somebody else was faster.
    if (!isError(error, 'already exists')) throw error;
  }
}

function isError(error: unknown, text: string): boolean {
  return error instanceof Error && error.message.includes(text);
}

/** Redis says `user_function:123:`, a line of the expanded text; people need the file's. */
function withLuaLine(error: unknown, script: Script): unknown {
  if (!isError(error, 'user_function:')) return error;
  const message = (error as Error).message.replace(
    /@?user_function:(\d+)/g,
    (_, line: string) => script.lines[Number(line) - 1] ?? script.name,
  );
  return new Error(`step ${script.step}: ${message}`, { cause: error });
}
