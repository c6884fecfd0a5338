import { isMapping, parseYaml } from '../document.ts';
import { CommandError, exits } from './exits.ts';
import { nameOf, readText } from './read-file.ts';

/** The body of `PUT /v1/replicas/:id` in a file, YAML or JSON. What it holds is judged by the gateway. */
export async function readReplicaFile(file: string): Promise<Readonly<Record<string, unknown>>> {
  const read = parseYaml(await readText(file));
  if ('reason' in read) throw invalid(file, read.reason);
  if (isMapping(read.document)) return read.document;
  throw invalid(file, 'must be a mapping of the fields of a replica');
}

function invalid(file: string, reason: string): CommandError {
  return new CommandError('invalid_replica', `${nameOf(file)} ${reason}`, exits.refused);
}
