/** What README shows can be copied: its YAML is a valid config and valid policies. */

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { parse } from 'yaml';
import { loadConfig } from '../src/config.ts';
import { limitsOf, parsePolicy } from '../src/policy/index.ts';

async function yamlBlocks(): Promise<string[]> {
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
  return [...readme.matchAll(/^```yaml\n(.*?)^```/gms)].map(([, text]) => text ?? '');
}

test('the sluice.yaml and the policy of the README start as they stand', async () => {
  const [config = '', policy = ''] = await yamlBlocks();
  const folder = await mkdtemp(join(tmpdir(), 'sluice-readme-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  await mkdir(join(folder, 'policies'));
  await writeFile(join(folder, 'policies', 'mistral.yaml'), policy);
  await writeFile(join(folder, 'sluice.yaml'), config);

  const loaded = loadConfig({ file: join(folder, 'sluice.yaml'), env: {} });
  expect(loaded.pools.mistral?.replicas).toHaveLength(2);
  expect(loaded.policies.map(({ document }) => document)).toEqual([parse(policy)]);
  expect(limitsOf(parsePolicy(parse(policy)))).toEqual({ mistral: 8, 'mistral.user_id': 2 });
});

test('the other policies of the README are valid, one of each other blueprint', async () => {
  const [, , rate = '', quota = '', ...others] = await yamlBlocks();
  expect(others).toEqual([]);
  expect(limitsOf(parsePolicy(parse(rate)))).toMatchObject({
    'per-user.user_id': { capacity: 20, fillAmount: 10, intervalMs: 60_000 },
  });
  expect(parsePolicy(parse(quota))).toMatchObject({ scheduler: { maxQueueLength: 500 } });
  expect(limitsOf(parsePolicy(parse(quota)))).toMatchObject({
    'daily-tokens': { capacity: 1_000_000, fillAmount: 1_000_000, intervalMs: 86_400_000 },
  });
});
