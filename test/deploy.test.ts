import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { type Config, loadConfig } from '../src/config.ts';
import { parsePolicy } from '../src/policy/index.ts';

const fileOf = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const load = (path: string) => loadConfig({ file: fileOf(path), env: {} });

interface Compose {
  services: Record<string, { command?: string[]; ports?: string[]; profiles?: string[] }>;
}
const compose = parse(readFileSync(fileOf('docker-compose.yml'), 'utf8'), {
  merge: true,
}) as Compose;

/** Hosts of the replicas that no service of the compose file answers for. */
function unknownHosts(config: Config): string[] {
  return Object.values(config.pools)
    .flatMap(({ replicas }) => replicas.map(({ url }) => new URL(url).hostname))
    .filter((host) => compose.services[host] === undefined);
}

test.each(['deploy/compose.yaml', 'deploy/ollama.yaml'])(
  '%s is a valid configuration, and its replicas are services of docker-compose.yml',
  (path) => {
    const config = load(path);
    expect(config.policies.map(({ document }) => parsePolicy(document).name)).toEqual(['mistral']);
    expect(Object.values(config.pools).flatMap(({ replicas }) => replicas)).not.toEqual([]);
    expect(unknownHosts(config)).toEqual([]);
  },
);

test('A replica that is no service is found', () => {
  const config = load('deploy/compose.yaml');
  const replica = {
    id: 'x',
    url: 'http://elsewhere:1',
    protocol: 'ollama',
    maxInflight: 1,
  } as const;
  expect(unknownHosts({ ...config, pools: { mistral: { replicas: [replica] } } })).toEqual([
    'elsewhere',
  ]);
});

test('The compose file runs two of each process, and publishes on this machine only', () => {
  const commands = Object.values(compose.services).map(({ command }) => command?.[0]);
  for (const command of ['gateway', 'worker', 'simulator']) {
    expect(commands.filter((each) => each === command)).toHaveLength(2);
  }
  const ports = Object.values(compose.services).flatMap((service) => service.ports ?? []);
  expect(ports).toEqual([
    ...['127.0.0.1:8080:8080', '127.0.0.1:8089:8089'],
    ...['127.0.0.1:8081:8080', '127.0.0.1:8090:8089'],
  ]);
});

test('the image has everything that the code reads at run time', () => {
  const files = ['scripts/build.js', 'Dockerfile', '.dockerignore'];
  const [build, image, context] = files.map((file) => readFileSync(fileOf(file), 'utf8'));
  const [, list = ''] = /const readAtRunTime = \[(.*)\]/.exec(build ?? '') ?? [];
  const folders = [...list.matchAll(/'(\w+)'/g)].map(([, name]) => name);
  expect(folders).toEqual(['lua', 'proto']);
  for (const folder of folders) {
    expect(image).toContain(`COPY ${folder} ./${folder}`);
    expect(context?.split('\n')).toContain(`!${folder}`);
  }
});
