/** The package as npm installs it, with what it depends on; needs the registry. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished, test } from 'vitest';
import { installed, pack } from '../support/package.ts';
import { expectUsable } from '../support/package-use.ts';

test('npm installs the package, and it works', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-pack-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  await expectUsable(await installed(await pack(folder)));
}, 900_000);
