/** What README shows can be copied: its YAML is a valid config and a valid policy. */

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { parse } from 'yaml';
import { loadConfig } from '../src/config.ts';
import { limitsOf, parsePolicy } from '../src/policy/index.ts';

test('the sluice.yaml and the policy of the README start as they stand', async () => {
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
  const blocks = [...readme.matchAll(/^```yaml\n(.*?)^```/gms)].map(([, text]) => text ?? '');
  const [config = '', policy = ''] = blocks;
  expect(blocks).toHaveLength(2);
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
