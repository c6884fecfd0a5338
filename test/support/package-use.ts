/** What a project does with the package, whichever way it got it. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { policyValues } from '../gateway/world.ts';
import type { Project } from './package.ts';
import { testRedis } from './redis.ts';

const tsc = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url));

const program = `
import { FlowRejectedError, type FlowOptions, SluiceClient, SluiceClientError } from 'sluice';

const sluice = new SluiceClient({ url: process.argv[2] ?? '' });
const options: FlowOptions = { labels: { user_id: 'u1' }, timeoutMs: 50 };
const held = await sluice.startFlow('mistral-prompt', options);
const late: unknown = await sluice.startFlow('mistral-prompt', options).catch((error) => error);
const code = late instanceof FlowRejectedError && late instanceof SluiceClientError && late.code;
const { state } = await held.end({ status: 'ok' });
const length: number = await sluice.withFlow('mistral-prompt', {}, async ({ id }) => id.length);
{
  await using flow = await sluice.startFlow('mistral-prompt', { heartbeat: true });
  console.log([code, state, length > 0, flow.signal.aborted].join(' '));
}
`;

/** Line 4 and line 5 are what must be refused. */
const wrong = `
import { SluiceClient } from 'sluice';
const sluice = new SluiceClient({ url: 'http://127.0.0.1' });
await sluice.startFlow('mistral-prompt', { timeout: 50 });
await (await sluice.startFlow('mistral-prompt')).end({ status: 'good' });
`;

const tsconfig = {
  compilerOptions: {
    target: 'es2022',
    module: 'nodenext',
    types: ['node'],
    strict: true,
    noEmit: true,
    skipLibCheck: false,
  },
  files: ['program.ts', 'readme.ts', 'wrong.ts'],
};

/** Its types hold, its client starts and ends flows, its commands run and find what they read. */
export async function expectUsable(project: Project): Promise<void> {
  const write = (name: string, content: string | object) =>
    writeFile(
      join(project.folder, name),
      typeof content === 'string' ? content : JSON.stringify(content),
    );
  const own = join(project.folder, 'node_modules', 'sluice');
  const readme = await readFile(join(own, 'README.md'), 'utf8');
  await write('program.ts', program);
  const [, example = ''] = /^```ts\n(.*?)^```/ms.exec(readme) ?? [];
  expect(example).toContain('SluiceClient');
  await write('readme.ts', example);
  await write('wrong.ts', wrong);
  await write('tsconfig.json', tsconfig);
  const judged = await project
    .run(process.execPath, [tsc, '-p', '.', '--pretty', 'false'])
    .catch((error: { stdout: string }) => error.stdout);
  const errors = judged.split('\n').filter((line) => line.includes('error TS'));
  expect(errors.map((line) => /^[\w.]+\(\d+/.exec(line)?.[0] ?? line)).toEqual([
    'wrong.ts(4',
    'wrong.ts(5',
  ]);

  const sluice = join(project.folder, 'node_modules', '.bin', 'sluice');
  const { version } = JSON.parse(await readFile(join(own, 'package.json'), 'utf8')) as {
    version: string;
  };
  expect(await project.run(sluice, ['--version'])).toBe(`${version}\n`);

  const redis = await testRedis();
  await write('sluice.yaml', { port: 0, grpc_port: 0, policies: [policyValues(1)] });
  const env = { PATH: process.env.PATH, REDIS_URL: redis.url };
  const ready = /"url":"([^"]+)".*"msg":"gateway ready"/;
  const { caught: url } = await project.start(['gateway'], env, ready);
  expect(await project.run(process.execPath, ['program.ts', url])).toBe(
    'queue_timeout done true false\n',
  );
  const queue = await project.run(sluice, ['queue', '--json'], { SLUICE_URL: url });
  expect(JSON.parse(queue)).toMatchObject({ queues: [{ limits: [{ key: 'mistral', limit: 1 }] }] });
  await redis.stop();
}

/** JavaScript, what it reads, and the types of the client: nothing that Node would have to strip. */
export async function expectLean(project: Project): Promise<void> {
  const own = join(project.folder, 'node_modules', 'sluice');
  const files = (await readdir(own, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(own.length + 1));
  const kinds = new Set(files.map((file) => file.replace(/.*?((\.d)?\.\w+)$/, '$1')));
  expect([...kinds].toSorted()).toEqual(
    expect.arrayContaining(['.d.ts', '.js', '.json', '.lua', '.md', '.yaml', 'LICENSE']),
  );
  const outside = files.filter(
    (file) => /\.ts$/.test(file) && !file.startsWith('dist/src/client/'),
  );
  expect(outside).toEqual([]);
  for (const file of files.filter((name) => name.endsWith('.d.ts'))) {
    // Not every version of TypeScript finds the types of what ends in .ts.
    expect(await readFile(join(own, file), 'utf8'), file).not.toMatch(/from '\.[^']*\.ts'/);
  }
  expect(files.filter((file) => /(^|\/)(test|bench)\//.test(file))).toEqual([]);
}
