import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Redis } from 'ioredis';

/**
 * Loads the Lua steps and runs them by hash. A step names the libraries it needs in one line,
 * `-- use step limiters tree`; they are put before it, one level deep, in that order. Plain EVALSHA
 * and not Redis Functions: functions are global, named and kept, so that two versions of a rolling
 * deploy would overwrite each other.
 */

const luaFolder = new URL('../../lua/', import.meta.url);

/** One atomic step, ready to run. */
export interface Script {
  readonly name: string;
  readonly source: string;
  readonly sha: string;
  /** For each line of `source`, the file and line it came from. */
  readonly lines: readonly string[];
}

/** Tests only: a change to the expanded source of a step, to show what the change breaks. */
export type Patch = (step: string, source: string) => string;

/**
 * What follows this line in a library is its own: it becomes a block. Closures are made anew in each
 * call, and Lua looks for what they refer to among all locals that are in scope: fewer are faster.
 */
const privateLine = '-- private';

/** Reads `lua/<name>.lua` and what it uses. Throws if a file is missing. */
export function loadScript(name: string, patch?: Patch): Script {
  const own = readLua(`${name}.lua`);
  const use = own.find((line) => line.startsWith('-- use '));
  const files = (use?.slice('-- use '.length).split(' ') ?? []).map((lib) => `lib/${lib}.lua`);
  // Flags stand before everything: steps that free memory also run when Redis is full.
  const flags = own.filter((line) => line.startsWith('#!lua'));
  const text = [...flags];
  const lines = flags.map(() => `lua/${name}.lua:1`);
  for (const file of [...files, `${name}.lua`]) {
    const content = readLua(file);
    const blocks = content.filter((line) => line === privateLine).length;
    for (const [index, line] of content.entries()) {
      const end = index === content.length - 1 ? ' end'.repeat(blocks) : '';
      const code = line === privateLine ? 'do' : line;
      text.push(line.startsWith('#!lua') ? '' : `${code}${end}`);
      lines.push(`lua/${file}:${index + 1}`);
    }
  }
  const expanded = text.join('\n');
  const source = patch?.(name, expanded) ?? expanded;
  return { name, source, sha: createHash('sha1').update(source).digest('hex'), lines };
}

function readLua(file: string): string[] {
  return readFileSync(new URL(file, luaFolder), 'utf8').trimEnd().split('\n');
}

/**
 * Runs a step. A server that does not know the script (restarted, failed over) is sent its text.
 * @throws what ioredis throws; an error inside the script names its Lua file and line.
 */
export async function runScript(
  redis: Redis,
  script: Script,
  keys: readonly string[],
  args: readonly string[],
): Promise<string> {
  try {
    try {
      return String(await redis.evalsha(script.sha, keys.length, ...keys, ...args));
    } catch (error) {
      if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error;
      return String(await redis.eval(script.source, keys.length, ...keys, ...args));
    }
  } catch (error) {
    throw withLuaLine(error, script);
  }
}

/** Redis says `user_script:123:`, a line of the expanded text; people need the file's. */
function withLuaLine(error: unknown, script: Script): unknown {
  if (!(error instanceof Error) || !error.message.includes('user_script:')) return error;
  const message = error.message.replace(
    /@?user_script:(\d+)/g,
    (_, line: string) => script.lines[Number(line) - 1] ?? script.name,
  );
  return new Error(`step ${script.name}: ${message}`, { cause: error });
}
