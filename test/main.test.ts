/** A start that cannot succeed says everything that is wrong, in the config and in the policies. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runGateway } from '../src/main.ts';

test('problems of the config and of its policies are told at once', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-main-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, 'sluice.yaml');
  const config = `
api_keys: [{ key: "with spaces" }]
policies:
  - blueprint: concurrency-scheduling/base
    policy: { policy_name: p, concurrency_scheduler: { max_concurrency: -1, selectors: [] } }
`;
  await writeFile(file, config);
  const error = await runGateway({ env: {}, configFile: file }).catch((thrown: Error) => thrown);
  expect(error).toMatchObject({ name: 'ConfigError' });
  const text = String(error);
  for (const place of ['api_keys[0].key', 'max_concurrency', 'selectors', 'concurrency_limiter']) {
    expect(text).toContain(place);
  }
});
