import type { Command } from 'commander';
import { SluiceClientError } from '../client/errors.ts';
import type { Http } from '../client/http.ts';
import { type LettersView, type LetterView, lettersText, letterText } from './dead-letter-text.ts';
import { CommandError, type Exit, exitOf, exits, jsonOf, textOf } from './exits.ts';
import { ask, listCommandOf, printJson, type ServerOptions, withServer } from './server.ts';
import { number } from './values.ts';

/** Commands for prompts that failed on too many replicas. */
export function deadLetterCommands(program: Command): void {
  const letters = program
    .command('dead-letters')
    .description('prompts that failed on too many replicas: look, run again, let go')
    .addHelpText(
      'after',
      `
Without a command it lists them; \`sluice dead-letters list --help\` has the options for that.
Every command asks the gateway of SLUICE_URL with the key of SLUICE_API_KEY, which has to be one with
admin: true where there are api_keys: a dead letter holds what somebody asked.

  $ sluice dead-letters
  $ sluice dead-letters show main-0198f1a2b3c4
  $ sluice dead-letters replay --all
  $ sluice dead-letters purge main-0198f1a2b3c4`,
    );
  listCommand(letters);
  showCommand(letters);
  replayCommand(letters);
  purgeCommand(letters);
}

function listCommand(letters: Command): void {
  withServer(listCommandOf(letters))
    .description('the newest first')
    .option('--after <n>', 'pass over so many of the newest', number, 0)
    .option('--count <n>', 'show at most so many, up to 200', number, 100)
    .addHelpText('after', '\n  $ sluice dead-letters\n  $ sluice dead-letters list --after 100')
    .action((options: ServerOptions & { readonly after: number; readonly count: number }) =>
      ask(options, async (http) => {
        const { after, count } = options;
        const answer = await http.call('GET', `${root}?after=${after}&count=${count}`);
        if (options.json) printJson(answer);
        else console.log(lettersText(answer as unknown as LettersView, after, Date.now()));
        return exits.ok;
      }),
    );
}

function showCommand(letters: Command): void {
  withServer(letters.command('show'))
    .description('what became of each attempt, and what was asked')
    .argument('<id>')
    .addHelpText('after', '\n  $ sluice dead-letters show main-0198f1a2b3c4')
    .action((id: string, options: ServerOptions) =>
      ask(options, async (http) => {
        const answer = await http.call('GET', pathOf(id));
        if (options.json) printJson(answer);
        else console.log(letterText(answer as unknown as LetterView, Date.now()));
        return exits.ok;
      }),
    );
}

interface ManyOptions extends ServerOptions {
  readonly all?: true;
}

function replayCommand(letters: Command): void {
  withServer(letters.command('replay'))
    .description('run them again, each as a job with the labels and at the control point of before')
    .argument('[ids...]')
    .option('--all', 'all that there are now, oldest first')
    .addHelpText(
      'after',
      `
A letter that is replayed is none any more. One that is refused stays, and the others go on; then the
exit code is 1. The answer is the job's: GET /v1/jobs/ID.

  $ sluice dead-letters replay main-0198f1a2b3c4
  $ sluice dead-letters replay --all`,
    )
    .action((ids: readonly string[], options: ManyOptions) =>
      ask(options, async (http) => {
        checkWhich(ids, options);
        const asked = options.all ? await allIds(http) : ids;
        const replay = (id: string) => http.call('POST', `${pathOf(id)}/replay`);
        const told = (id: string, answer: Answer) => `${id} runs again as job ${answer.id}`;
        return each(asked, replay, { name: 'replayed', told, json: options.json });
      }),
    );
}

function purgeCommand(letters: Command): void {
  withServer(letters.command('purge'))
    .description('let them go: what they asked is gone for good')
    .argument('[ids...]')
    .option('--all', 'all of them')
    .addHelpText(
      'after',
      `
  $ sluice dead-letters purge main-0198f1a2b3c4
  $ sluice dead-letters purge --all`,
    )
    .action((ids: readonly string[], options: ManyOptions) =>
      ask(options, async (http) => {
        checkWhich(ids, options);
        if (!options.all) {
          const purge = (id: string) => http.call('DELETE', pathOf(id));
          const told = (id: string) => `${id} is purged`;
          return each(ids, purge, { name: 'purged', told, json: options.json });
        }
        const answer = await http.call('DELETE', root);
        if (options.json) printJson(answer);
        else console.log(answer.purged === 1 ? '1 is purged' : `${answer.purged} are purged`);
        return exits.ok;
      }),
    );
}

/** Nothing is meant by saying nothing. */
function checkWhich(ids: readonly string[], { all }: ManyOptions): void {
  if (ids.length > 0 ? !all : all) return;
  const message = 'name dead letters by their ids, or all of them with --all';
  throw new CommandError('usage', message, exits.trouble);
}

/** Letters of one read. */
const pageLetters = 200;

/** All that there are at this moment, oldest first. */
async function allIds(http: Http): Promise<readonly string[]> {
  const ids = new Set<string>();
  for (let after = 0, total = 1; after < total; ) {
    const answer = await http.call('GET', `${root}?after=${after}&count=${pageLetters}`);
    const { letters, total: now } = answer as unknown as LettersView;
    for (const { id } of letters) ids.add(id);
    after += letters.length;
    total = letters.length === 0 ? 0 : now;
  }
  return [...ids].reverse();
}

type Answer = Readonly<Record<string, unknown>>;

/** Does it with one after the other. What is refused is told, and the others go on. */
async function each(
  ids: readonly string[],
  work: (id: string) => Promise<Answer>,
  as: {
    readonly name: string;
    readonly told: (id: string, answer: Answer) => string;
    readonly json: true | undefined;
  },
): Promise<Exit> {
  const answers: Answer[] = [];
  const refused: object[] = [];
  try {
    for (const id of ids) {
      try {
        const answer = await work(id);
        answers.push(answer);
        if (!as.json) console.log(as.told(id, answer));
      } catch (error) {
        if (!(error instanceof SluiceClientError) || exitOf(error) !== exits.refused) throw error;
        refused.push({ id, ...jsonOf(error) });
        if (!as.json) console.error(`${id}: ${textOf(error)}`);
      }
    }
    if (ids.length === 0 && !as.json) console.log('there are no dead letters');
  } finally {
    // What was done before a gateway was gone is done.
    if (as.json) printJson({ [as.name]: answers, refused });
  }
  return refused.length === 0 ? exits.ok : exits.refused;
}

const root = '/v1/dead-letters';

function pathOf(id: string): string {
  return `${root}/${encodeURIComponent(id)}`;
}
