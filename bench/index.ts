/** The command line of the benchmark: `npm run bench -- --help`. */

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError } from 'commander';
import { RedisServerError } from '../src/redis-server/index.ts';
import { markdownOf, writePage } from './report.ts';
import { parts, type Results, run } from './run.ts';

const folder = fileURLToPath(new URL('.', import.meta.url));
const page = fileURLToPath(new URL('../docs/benchmarks.md', import.meta.url));

const roundsDefault = 5;

const program = new Command('bench')
  .description('Measures Sluice, beside what else there is, in one run on this machine.')
  .argument('[parts...]', 'which parts; all when none is named')
  .option('--quick', 'a smoke run of about a minute: that it runs, not how fast')
  .option('--rounds <n>', `rounds of each part (${roundsDefault}; with --quick 1)`, wholeNumber)
  .option('--report <file>', 'run nothing: write docs/benchmarks.md anew from these results')
  .showHelpAfterError('(see npm run bench -- --help)')
  .addHelpText(
    'after',
    `
Parts:
${parts.map(({ name, about }) => `  ${name.padEnd(10)} ${about}`).join('\n')}

  $ npm run bench                       everything, about 20 minutes
  $ npm run bench -- pairs contended    two parts
  $ npm run bench -- --quick            does it run?

It starts a redis-server or valkey-server of its own on a free port, without persistence, and stops
what it started. The peers are installed in bench/peers the first time. Keep the machine quiet: the
rounds of everything that is compared take turns, but a figure is no better than its machine.

A run of all parts writes bench/results/<date>-<commit>.json and the table in docs/benchmarks.md;
any other writes bench/output/ only. The table goes to stdout, progress to stderr.`,
  )
  .action((names: string[], options: { quick?: true; rounds?: number; report?: string }) =>
    main(names, options),
  );

// Servers that were started end with this process, in its 'exit' handlers.
for (const [signal, code] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 })) {
  process.once(signal, () => process.exit(code));
}
await program.parseAsync().catch((error: unknown) => {
  // No server, or an error of the benchmark's own.
  if (error instanceof RedisServerError) console.error(`bench: ${error.message}`);
  else console.error(error);
  process.exit(1);
});

async function main(
  names: readonly string[],
  options: { quick?: true; rounds?: number; report?: string },
): Promise<void> {
  if (options.report !== undefined) {
    const stored = JSON.parse(await readFile(options.report, 'utf8')) as Results;
    await writePage(page, stored);
    return;
  }
  const unknown = names.filter((name) => parts.every((part) => part.name !== name));
  if (unknown.length > 0) {
    const known = parts.map(({ name }) => name).join(', ');
    program.error(`no part ${unknown.join(', ')}; there are ${known}`);
  }
  const chosen = parts.filter(({ name }) => names.length === 0 || names.includes(name));
  const quick = options.quick ?? false;
  const rounds = options.rounds ?? (quick ? 1 : roundsDefault);
  const results = await run({ parts: chosen, quick, rounds });
  const isWhole = !quick && chosen.length === parts.length;
  const file = await store(results, isWhole ? 'results' : 'output');
  if (isWhole) await writePage(page, results);
  console.log(markdownOf(results));
  console.error(
    `results: ${relative(process.cwd(), file)}${isWhole ? ', docs/benchmarks.md' : ''}`,
  );
}

async function store(results: Results, name: string): Promise<string> {
  await mkdir(join(folder, name), { recursive: true });
  const which = name === 'results' ? '' : `-${results.parts.map((part) => part.name).join('-')}`;
  const file = join(folder, name, `${results.date}-${results.commit}${which}.json`);
  await writeFile(file, `${JSON.stringify(results, null, 2)}\n`);
  return file;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('not a whole number');
  return value;
}
