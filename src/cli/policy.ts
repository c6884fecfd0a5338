import { Command } from 'commander';
import type { Http } from '../client/http.ts';
import { exits } from './exits.ts';
import { ask, ending, jsonOption, printJson, type ServerOptions, withServer } from './server.ts';
import { table } from './table.ts';

/**
 * Commands that read and change policies. Reading a values file takes the schemas, which are slow to
 * load: only the actions that read one load them.
 */
export function policyCommands(program: Command): void {
  const policy = program
    .command('policy')
    .description('read, check and change the policies of a running cluster');

  const add = (to: Command, command: Command) => {
    to.addCommand(command.copyInheritedSettings(program));
  };
  add(policy, applyCommand());
  add(policy, diffCommand());
  add(policy, validateCommand());
  add(policy, listCommand());
  add(policy, getCommand());
  add(policy, deleteCommand());

  // As in `aperturectl blueprints apply --values-file=FILE`.
  add(program.command('blueprints', { hidden: true }), applyCommand());
}

interface FileOptions {
  readonly file?: readonly string[];
  readonly valuesFile?: readonly string[];
}

function withFiles(command: Command): Command {
  return command
    .option('-f, --file <file...>', 'values files in YAML or JSON; - is standard input')
    .option('--values-file <file...>', 'the same, as aperturectl calls it');
}

function filesOf({ file = [], valuesFile = [] }: FileOptions): string[] {
  return [...file, ...valuesFile];
}

interface ApplyOptions extends ServerOptions, FileOptions {
  readonly dryRun?: true;
}

function applyCommand(): Command {
  return withServer(withFiles(new Command('apply')))
    .description('put policies into the cluster, for all gateways at once, while prompts run')
    .option('--dry-run', 'only say what would change')
    .addHelpText(
      'after',
      `
Nothing is sent unless every file is valid. Takes a key with admin: true where there are api_keys.

  $ sluice policy apply -f policies/mistral.yaml
  $ sluice policy apply -f policies/*.yaml --dry-run
  $ sluice policy get mistral | sed 's/max_concurrency: 8/max_concurrency: 16/' | sluice policy apply -f -`,
    )
    .action((options: ApplyOptions) => (options.dryRun ? dryRun(options) : apply(options)));
}

function apply(options: ApplyOptions): Promise<void> {
  return ask(options, async (http) => {
    const { readValidFiles } = await import('./policy-files.ts');
    const { applyFile } = await import('./policy-changes.ts');
    const answers: object[] = [];
    try {
      for (const file of await readValidFiles(filesOf(options))) {
        const { change, answer, warnings } = await applyFile(http, file);
        answers.push({ change, ...answer });
        if (options.json) continue;
        console.log(`policy ${file.name} ${change} (version ${answer.version})`);
        warn(file.name, warnings);
      }
    } finally {
      // What was applied before one was refused stays.
      if (options.json && answers.length > 0) printJson(answers);
    }
    return exits.ok;
  });
}

function dryRun(options: ApplyOptions): Promise<void> {
  return ask(options, async (http) => {
    const changes = await compareAll(http, options);
    if (options.json) printJson(changes);
    else {
      for (const { name, change, diff, warnings } of changes) {
        const would = change === 'unchanged' ? 'is as it would be' : `would be ${change}`;
        console.log(`policy ${name} ${would}`);
        if (diff !== '') console.log(diff);
        warn(name, warnings);
      }
    }
    return exits.ok;
  });
}

function diffCommand(): Command {
  return withServer(withFiles(new Command('diff')))
    .description('what apply would change, line by line; keys in alphabetical order')
    .addHelpText(
      'after',
      `
Exit code as of diff: 0 without differences, 1 with differences, 2 when it could not compare.

  $ sluice policy diff -f policies/mistral.yaml`,
    )
    .action((options: ServerOptions & FileOptions) =>
      ask({ ...options, refusal: exits.trouble }, async (http) => {
        const changes = await compareAll(http, options);
        const differing = changes.filter(({ change }) => change !== 'unchanged');
        if (options.json) printJson(changes);
        else for (const { diff } of differing) console.log(diff);
        return differing.length === 0 ? exits.ok : exits.refused;
      }),
    );
}

interface Compared {
  readonly name: string;
  readonly file: string;
  readonly change: string;
  readonly diff: string;
  readonly warnings: readonly string[];
}

async function compareAll(http: Http, options: FileOptions): Promise<Compared[]> {
  const { readValidFiles } = await import('./policy-files.ts');
  const { compareFile } = await import('./policy-changes.ts');
  const changes: Compared[] = [];
  for (const policy of await readValidFiles(filesOf(options))) {
    const { name, file, warnings } = policy;
    changes.push({ name, file, ...(await compareFile(http, policy)), warnings });
  }
  return changes;
}

/** What has no effect here, though it is allowed. */
function warn(name: string, warnings: readonly string[]): void {
  for (const warning of warnings) console.error(`warning: policy ${name}: ${warning}`);
}

function validateCommand(): Command {
  return withFiles(new Command('validate'))
    .description('look for every problem of values files; asks no gateway')
    .addOption(jsonOption())
    .addHelpText('after', '\n  $ sluice policy validate -f policies/*.yaml')
    .action((options: FileOptions & { json?: true }) =>
      ending(options, async () => {
        const { problemLines, readFiles } = await import('./policy-files.ts');
        const { policies, problems, exit } = await readFiles(filesOf(options));
        const valid = policies.map(({ file, name, warnings }) => ({ file, name, warnings }));
        if (options.json) printJson({ valid, problems });
        else {
          for (const { file, name, warnings } of valid) {
            console.log(`${file}: policy ${name} is valid`);
            warn(name, warnings);
          }
          if (problems.length > 0) console.error(problemLines(problems));
        }
        return exit;
      }),
    );
}

interface PolicyView {
  readonly name: string;
  readonly version: string;
  readonly source: string;
  readonly policy: unknown;
}

function listCommand(): Command {
  return withServer(new Command('list'))
    .description('the policies of the cluster')
    .addHelpText('after', '\n  $ sluice policy list')
    .action((options: ServerOptions) =>
      ask(options, async (http) => {
        const answer = await http.call('GET', '/v1/policies');
        if (options.json) printJson(answer);
        else {
          const { describeIfKnown } = await import('./policy-text.ts');
          const policies = answer.policies as PolicyView[];
          const rows = policies.map(({ name, version, source, policy }) => {
            return [name, describeIfKnown(policy), source, version];
          });
          console.log(table(['POLICY', 'LIMIT', 'SOURCE', 'VERSION'], rows));
        }
        return exits.ok;
      }),
    );
}

function getCommand(): Command {
  return withServer(new Command('get'))
    .description('the values file of a policy')
    .argument('<name>')
    .addHelpText(
      'after',
      `
  $ sluice policy get mistral > mistral.yaml
  $ sluice policy apply -f mistral.yaml`,
    )
    .action((name: string, options: ServerOptions) =>
      ask(options, async (http) => {
        const answer = await http.call('GET', `/v1/policies/${encodeURIComponent(name)}`);
        if (options.json) printJson(answer);
        else {
          const { policyYaml } = await import('./policy-text.ts');
          console.log(policyYaml(answer.policy).trimEnd());
        }
        return exits.ok;
      }),
    );
}

function deleteCommand(): Command {
  return withServer(new Command('delete'))
    .description('take a policy away; one of a file comes back when a gateway starts')
    .argument('<name>')
    .option('--force', 'cancel those who wait or run under it; otherwise that is refused')
    .addHelpText('after', '\n  $ sluice policy delete mistral')
    .action((name: string, options: ServerOptions & { force?: true }) =>
      ask(options, async (http) => {
        const query = options.force ? '?force=true' : '';
        const answer = await http.call(
          'DELETE',
          `/v1/policies/${encodeURIComponent(name)}${query}`,
        );
        if (options.json) printJson(answer);
        else {
          const requests = answer.cancelled === 1 ? '1 request' : `${answer.cancelled} requests`;
          console.log(`policy ${name} deleted, ${requests} cancelled`);
        }
        return exits.ok;
      }),
    );
}
