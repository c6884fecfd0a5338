/** A start that cannot succeed says everything that is wrong, in the config and in the policies. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runGateway } from '../src/main.ts';

/** The text of what a gateway with this config file throws. */
async function refusalOf(config: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-main-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, 'sluice.yaml');
  await writeFile(file, config);
  const error = await runGateway({ env: {}, configFile: file }).catch((thrown: Error) => thrown);
  expect(error).toMatchObject({ name: 'ConfigError' });
  return String(error);
}

test('problems of the config and of its policies are told at once', async () => {
  const text = await refusalOf(`
api_keys: [{ key: "with spaces" }]
policies:
  - blueprint: concurrency-scheduling/base
    policy: { policy_name: p, concurrency_scheduler: { max_concurrency: -1, selectors: [] } }
`);
  for (const place of ['api_keys[0].key', 'max_concurrency', 'selectors', 'concurrency_limiter']) {
    expect(text).toContain(place);
  }
});

test('a limit that follows pools is judged where the models are known', async () => {
  const policies = `
policies:
  - { policy_name: p, max_concurrency: auto, max_inflight_duration: 60s, control_point: nowhere }
`;
  const alone = await refusalOf(policies);
  expect(alone).toContain('policies[0]: max_concurrency is `auto`, but no model of this gateway');
  expect(alone).toContain('scheduled at "nowhere"');
  const broken = await refusalOf(`models: { mistral: { pool: none } }${policies}`);
  expect(broken).toContain('models.mistral.pool');
  expect(broken).not.toContain('auto');
});
