/** Reads the files that configure a process; every failure becomes a problem, never a throw. */
import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { isMapping, join, type Problem, parseYaml } from '../document.ts';
import type { PolicySource } from './types.ts';

/** Files of more bytes are refused: a configuration is written by people. */
const fileBytes = 4 * 1024 * 1024;

/**
 * The config file as a mapping; empty when it is empty or when `named` is undefined and the default
 * `sluice.yaml` does not exist. `named.by` says who named it, as the path of the problem if it cannot be read.
 */
export function readConfigFile(
  named: { readonly path: string; readonly by: string } | undefined,
  problems: Problem[],
): Readonly<Record<string, unknown>> {
  const path = named?.path ?? 'sluice.yaml';
  const read = readYaml(path);
  if (read.status === 'absent' && named === undefined) return {};
  if (read.status !== 'read') {
    problems.push({ path: named?.by ?? path, reason: `${read.reason} (${resolve(path)})` });
    return {};
  }
  if (read.document === null || read.document === undefined) return {};
  if (isMapping(read.document)) return read.document;
  problems.push({ path, reason: 'must be a mapping of settings, such as `port: 8080`' });
  return {};
}

/** The values files named by `policy_files`, relative to the config file, in their order. */
export function readPolicyFiles(
  files: readonly string[],
  configPath: string,
  problems: Problem[],
): PolicySource[] {
  return files.flatMap((file, index) => {
    const source = resolve(dirname(configPath), file);
    const read = readYaml(source);
    if (read.status === 'read') return [{ source, document: read.document }];
    problems.push({ path: join('policy_files', index), reason: `${read.reason} (${source})` });
    return [];
  });
}

type Read =
  | { readonly status: 'read'; readonly document: unknown }
  | { readonly status: 'absent' | 'refused'; readonly reason: string };

function readYaml(path: string): Read {
  try {
    const { size } = statSync(path);
    if (size > fileBytes) {
      return { status: 'refused', reason: `is larger than ${fileBytes} bytes` };
    }
    const parsed = parseYaml(readFileSync(path, 'utf8'));
    return 'reason' in parsed
      ? { status: 'refused', reason: parsed.reason }
      : { status: 'read', document: parsed.document };
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return { status: 'absent', reason: 'does not exist' };
    const reason = codeOf(error) ?? (error instanceof Error ? error.message : String(error));
    return { status: 'refused', reason: `cannot be read: ${reason}` };
  }
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('syscall' in error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
