/** What docs/replicas.md shows can be copied: its files load, and its commands are ones that there are. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generate } from 'selfsigned';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { loadConfig, readReplicaPut } from '../../src/config.ts';
import { parsePolicy } from '../../src/policy/index.ts';
import { folderWith, sluice } from './sluice.ts';

async function blocks(kind: 'yaml' | 'sh'): Promise<string[]> {
  const guide = await readFile(new URL('../../docs/replicas.md', import.meta.url), 'utf8');
  const fence = new RegExp(`^\`\`\`${kind}\n(.*?)^\`\`\``, 'gms');
  return [...guide.matchAll(fence)].map(([, text]) => text ?? '');
}

/** The words of a line, as a shell reads what the guide has. */
function wordsOf(line: string): string[] {
  const words = line.replace(/ +#.*$/, '').matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g);
  return [...words].map(([, single, double, plain]) => single ?? double ?? plain ?? '');
}

test('each of its config files starts a gateway, and its policy is one', async () => {
  const folder = await folderWith();
  await mkdir(join(folder, 'tls'));
  const { cert } = await generate([{ name: 'commonName', value: 'ours' }]);
  await writeFile(join(folder, 'tls', 'ca.pem'), cert);
  const all = await blocks('yaml');
  const policies = all.filter((text) => text.startsWith('blueprint:'));
  expect(policies.map((text) => parsePolicy(parse(text)))).toMatchObject([
    { kind: 'concurrency', maxConcurrency: 'auto' },
  ]);
  const configs = all.filter((text) => !policies.includes(text));
  expect(configs).toHaveLength(5);
  for (const text of configs) {
    const file = join(folder, 'sluice.yaml');
    await writeFile(file, text);
    expect(Object.keys(loadConfig({ file, env: {} }).pools)).toHaveLength(1);
  }
});

test('each of its commands is taken as it stands, and what curl puts is a replica', async () => {
  const lines = (await blocks('sh')).join('').replaceAll('\\\n', '').split('\n');
  const commands = lines.filter((line) => line.startsWith('sluice '));
  expect(commands.length).toBeGreaterThan(15);
  await Promise.all(
    commands.map(async (line) => {
      const [, ...args] = wordsOf(line).filter((word) => word !== '--renew');
      // Nobody is there to be asked: whatever is wrong with the words would be told before.
      const { code, err } = await sluice(args, { url: 'http://127.0.0.1:9' });
      expect({ line, code, err }).toEqual({
        ...{ line, code: 2 },
        err: expect.stringContaining('cannot reach http://127.0.0.1:9'),
      });
    }),
  );
  const bodies = lines.flatMap((line) => /-d '(\{"pool".*\})'/.exec(line)?.[1] ?? []);
  expect(bodies).toHaveLength(1);
  for (const body of bodies) {
    expect(readReplicaPut(JSON.parse(body), 'gpu-7')).toMatchObject({ put: { pool: 'mistral' } });
  }
});
