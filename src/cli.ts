#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { deadLetterCommands } from './cli/dead-letters.ts';
import { exits } from './cli/exits.ts';
import { flowCommands } from './cli/flow.ts';
import { lookCommands } from './cli/look.ts';
import { pauseCommands } from './cli/pause.ts';
import { policyCommands } from './cli/policy.ts';
import { processCommands } from './cli/processes.ts';
import { replicaCommands } from './cli/replicas.ts';

/** The table of commands; `src/cli/` has them. */

const { argv, env } = process;
/** What follows `--` belongs to somebody else. */
const ownArguments = argv.slice(2, argv.includes('--') ? argv.indexOf('--') : argv.length);

const program = new Command('sluice')
  .description(
    'A scheduler for self-hosted LLM prompts: one fair order and one set of limits for a whole ' +
      'cluster of gateways and workers, kept in Redis.',
  )
  .version(version())
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? exits.ok : exits.trouble))
  .addHelpText(
    'after',
    `
In a clone, \`sluice\` is \`npm run sluice --\`.

Try it on one machine:
  $ sluice dev

Or as a cluster, any number of gateways and workers:
  $ export REDIS_URL=redis://redis:6379 SLUICE_CONFIG=sluice.yaml
  $ sluice gateway
  $ sluice worker

Look at it and change it:
  $ export SLUICE_URL=http://127.0.0.1:8080 SLUICE_API_KEY=a-key
  $ sluice queue
  $ sluice policy apply -f policies/mistral.yaml
  $ sluice replicas drain gpu-7 --deadline 2m

Do work of your own under its limits:
  $ sluice flow run mistral-prompt -l user_id=u1 -- python batch.py

Environment of what runs: PORT (8080), HOST (127.0.0.1), GRPC_PORT (8089), REDIS_URL, SLUICE_CONFIG
(sluice.yaml), LOG_LEVEL (info), OTEL_* (tracing and metrics start with
OTEL_EXPORTER_OTLP_ENDPOINT). Every option of the file: sluice.example.yaml.
Environment of the other commands: SLUICE_URL, SLUICE_API_KEY.

Exit codes: 0 done; 1 refused by the gateway, or a negative answer; 2 wrong arguments, or no gateway
that answers; 3 a flow was not admitted.`,
  );

if (ownArguments.includes('--json')) {
  const asJson = (text: string) => {
    const message = text.trim().replace(/^error: /, '');
    return `${JSON.stringify({ error: { code: 'usage', message } }, null, 2)}\n`;
  };
  program.configureOutput({ outputError: (text, write) => write(asJson(text)) });
} else {
  program.showHelpAfterError('(see sluice --help)');
}

program.commandsGroup('Run:');
processCommands(program, env);
program.commandsGroup('Look and change, over HTTP:');
lookCommands(program);
replicaCommands(program);
deadLetterCommands(program);
pauseCommands(program);
policyCommands(program);
program.commandsGroup('Work under a limit, over HTTP:');
flowCommands(program, env);

await program.parseAsync();

function version(): string {
  const file = new URL('../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
