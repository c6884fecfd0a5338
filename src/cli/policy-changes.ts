import type { Http } from '../client/http.ts';
import { SluiceClientError } from '../client/index.ts';
import { lineDiff } from './diff.ts';
import type { PolicyFile } from './policy-files.ts';
import { canonicalYaml } from './policy-text.ts';

/** What applying a file does, or would do. */

export type Change = 'created' | 'changed' | 'unchanged';

export interface Applied {
  readonly change: Change;
  /** What the gateway answered. */
  readonly answer: Readonly<Record<string, unknown>>;
  readonly warnings: readonly string[];
}

/** Puts the policy; what is the same as before changes nothing. */
export async function applyFile(http: Http, file: PolicyFile): Promise<Applied> {
  const before = await policyOf(http, file.name);
  const answer = await http.call('PUT', pathOf(file.name), { body: file.text });
  const change = changeOf(before, answer.version === before?.version);
  const warnings = Array.isArray(answer.warnings) ? answer.warnings.map(String) : [];
  return { change, answer, warnings };
}

/** What applying the file would change, by lines; the text is empty when it is nothing. */
export async function compareFile(
  http: Http,
  file: PolicyFile,
): Promise<{ readonly change: Change; readonly diff: string }> {
  const before = await policyOf(http, file.name);
  const change = changeOf(before, file.version === before?.version);
  if (change === 'unchanged') return { change, diff: '' };
  const now = before === undefined ? '' : canonicalYaml(before.policy);
  const lines = lineDiff(now, canonicalYaml(file.document));
  const where = before === undefined ? 'not in the cluster' : `in the cluster, ${before.version}`;
  return { change, diff: `--- ${file.name} (${where})\n+++ ${file.file}\n${lines}` };
}

export function pathOf(name: string): string {
  return `/v1/policies/${encodeURIComponent(name)}`;
}

async function policyOf(http: Http, name: string): Promise<Record<string, unknown> | undefined> {
  try {
    return await http.call('GET', pathOf(name));
  } catch (error) {
    if (error instanceof SluiceClientError && error.code === 'not_found') return undefined;
    throw error;
  }
}

function changeOf(before: object | undefined, isSame: boolean): Change {
  if (before === undefined) return 'created';
  return isSame ? 'unchanged' : 'changed';
}
