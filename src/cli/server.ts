import { type Command, InvalidArgumentError, Option } from 'commander';
import { Http } from '../client/http.ts';
import { type Exit, exitOf, exits, report } from './exits.ts';

/** What every command that asks a gateway has in common. */
export interface ServerOptions {
  readonly url: string;
  readonly apiKey?: string;
  readonly json?: true;
}

const defaultUrl = 'http://127.0.0.1:8080';

/**
 * Adds the options that say which gateway, who asks, and how the answer is printed. `flag` is another
 * name for the gateway's URL, where `--url` is something else.
 */
export function withServer(command: Command, flag = '--url'): Command {
  const url = new Option(`${flag} <url>`, 'any gateway of the cluster');
  const key = new Option(
    '--api-key <key>',
    'where the gateway has api_keys; better in the variable: options show in process lists',
  );
  return command
    .addOption(url.env('SLUICE_URL').default(defaultUrl).argParser(gatewayUrl))
    .addOption(key.env('SLUICE_API_KEY'))
    .addOption(jsonOption());
}

/** The command of a group that runs when none is named. What looks like another name is no argument. */
export function listCommandOf(group: Command): Command {
  const list = group.command('list', { isDefault: true }).allowExcessArguments();
  return list.hook('preAction', () => {
    const [other] = list.args;
    if (other === undefined) return;
    const known = group.commands.map((command) => command.name()).join(', ');
    list.error(`error: ${other} is not a command of ${group.name()}; known: ${known}`);
  });
}

export function jsonOption(): Option {
  return new Option('--json', 'print answers and errors as JSON, for programs');
}

/** Asks the gateway. `refusal` is the exit code of what it refuses, where 1 says something else. */
export function ask(
  options: ServerOptions & { readonly refusal?: Exit },
  work: (http: Http) => Promise<Exit>,
): Promise<void> {
  return ending(options, () => work(new Http(options)));
}

/** Does the work of a command; the end of this process says how it went, and errors are told. */
export async function ending(
  options: { readonly json?: true; readonly refusal?: Exit },
  work: () => Promise<Exit>,
): Promise<void> {
  try {
    process.exitCode = await work();
  } catch (error) {
    report(error, options.json === true);
    const exit = exitOf(error);
    process.exitCode = exit === exits.refused ? (options.refusal ?? exit) : exit;
  }
}

export function printJson(answer: unknown): void {
  console.log(JSON.stringify(answer, null, 2));
}

/** A variable that is set to nothing counts as unset. */
function gatewayUrl(text: string): string {
  if (text === '') return defaultUrl;
  try {
    return new Http({ url: text }).url;
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
  }
}
