import { type Problem, parseYaml } from '../document.ts';
import { PolicyError, parsePolicy, policyWarnings } from '../policy/index.ts';
import { CommandError, type Exit, exits } from './exits.ts';
import { FileError, nameOf, readText } from './read-file.ts';

/** A values file that can be applied. */
export interface PolicyFile {
  readonly file: string;
  readonly name: string;
  /** Of its content; a gateway that has it with the same one has it as it is here. */
  readonly version: string;
  /** As it was read: this is what is sent. */
  readonly text: string;
  readonly document: unknown;
  /** What it says without effect; no reason to refuse it. */
  readonly warnings: readonly string[];
}

/** What is wrong with a file; without a path it is the file as a whole. */
export interface FileProblem extends Problem {
  readonly file: string;
}

export interface ReadFiles {
  readonly policies: readonly PolicyFile[];
  readonly problems: readonly FileProblem[];
  /** What the problems make of the command. */
  readonly exit: Exit;
}

/** Reads files, `-` being standard input, and looks for every problem of each. Asks no gateway. */
export async function readFiles(files: readonly string[]): Promise<ReadFiles> {
  if (files.length === 0) throw usage('name a values file with -f FILE');
  if (files.filter((file) => file === '-').length > 1) throw usage('-f - can be given once');
  const policies: PolicyFile[] = [];
  const problems: FileProblem[] = [];
  let exit: Exit = exits.ok;
  for (const given of files) {
    const file = nameOf(given);
    try {
      const read = readPolicy(file, await readText(given));
      const twin = policies.find(({ name }) => name === read.name);
      if (twin) throw new PolicyError([{ path: 'policy_name', reason: `is that of ${twin.file}` }]);
      policies.push(read);
    } catch (error) {
      const found = problemsOf(error);
      if (found === undefined) throw error;
      exit = Math.max(exit, found.exit);
      problems.push(...found.problems.map((problem) => ({ file, ...problem })));
    }
  }
  return { policies, problems, exit };
}

/** The same, for commands that go on only when nothing is wrong. */
export async function readValidFiles(files: readonly string[]): Promise<readonly PolicyFile[]> {
  const { policies, problems, exit } = await readFiles(files);
  if (problems.length === 0) return policies;
  const message = `${problems.length} to mend, and nothing was sent`;
  const lines = problemLines(problems);
  throw new CommandError('invalid_policy', message, exit, { problems, lines });
}

/** A line for each: file, path, what would be right. */
export function problemLines(problems: readonly FileProblem[]): string {
  return problems
    .map(({ file, path, reason }) => `  ${file}: ${path === '' ? 'the document' : path} ${reason}`)
    .join('\n');
}

function readPolicy(file: string, text: string): PolicyFile {
  const read = parseYaml(text);
  if (!('document' in read)) throw new PolicyError([{ path: '', reason: read.reason }]);
  const { document } = read;
  const { name, version } = parsePolicy(document);
  const warnings = policyWarnings(document);
  return { file, name, version, text, document, warnings };
}

function problemsOf(error: unknown): { problems: readonly Problem[]; exit: Exit } | undefined {
  if (error instanceof PolicyError) return { problems: error.problems, exit: exits.refused };
  if (!(error instanceof FileError)) return undefined;
  return { problems: [{ path: '', reason: error.reason }], exit: error.exit };
}

function usage(message: string): CommandError {
  return new CommandError('usage', message, exits.trouble);
}
