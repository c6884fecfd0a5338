import { readFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { CommandError, type Exit, exits } from './exits.ts';

/** A file that cannot be read as text. */
export class FileError extends CommandError {
  /** What is wrong, as it follows the file's name. */
  readonly reason: string;

  constructor(file: string, reason: string, exit: Exit) {
    super('unreadable_file', `${nameOf(file)} ${reason}`, exit);
    this.reason = reason;
  }
}

/** What a message calls a file; `-` is standard input. */
export function nameOf(file: string): string {
  return file === '-' ? 'standard input' : file;
}

/** The text of a file. @throws FileError */
export async function readText(file: string): Promise<string> {
  const content = await contentOf(file);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch {
    throw new FileError(file, 'is not UTF-8', exits.refused);
  }
}

async function contentOf(file: string): Promise<Buffer> {
  if (file === '-') return buffer(process.stdin);
  try {
    return await readFile(file);
  } catch (error) {
    throw new FileError(file, `cannot be read: ${why(error)}`, exits.trouble);
  }
}

function why(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
  if (code === 'ENOENT') return 'there is no such file';
  return code === 'EISDIR' ? 'it is a directory: name its files' : code;
}
