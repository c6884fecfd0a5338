import { type Command, InvalidArgumentError, Option } from 'commander';
import { CommandError, exits } from './exits.ts';
import { milliseconds, number } from './values.ts';

/** What `sluice replicas put` puts: its options over what a file says. */
export interface PutOptions {
  readonly file?: string;
  readonly pool?: string;
  readonly url?: string;
  readonly protocol?: string;
  readonly model?: string;
  readonly maxInflight?: number;
  readonly price?: number;
  readonly zone?: string;
  readonly spot?: true;
  readonly credentials?: string;
  readonly probe?: string;
  readonly probeData?: string;
  readonly initialDelay?: number;
  readonly state?: string;
  readonly ttl?: number;
}

export type Body = Readonly<Record<string, unknown>>;

export function withPut(command: Command): Command {
  const protocols = new Option('--protocol <name>', 'what it speaks; ollama when left out');
  const states = new Option('--state <state>', 'ready or draining; as it was when left out');
  return command
    .option('--pool <name>', 'the pool that it serves in')
    .option('--url <url>', 'of the replica itself: http://gpu-7:8000')
    .addOption(protocols.choices(['ollama', 'openai', 'ray']))
    .option('--model <name>', "the model's name there, where callers use another")
    .option('--max-inflight <n>', 'prompts that it takes at once; 2 when left out', number)
    .option('--price <n>', 'of an hour, in the unit of the others', number)
    .option('--zone <name>', 'where it stands')
    .option('--spot', 'its machine can be taken away at short notice')
    .option('--credentials <name>', "of what it is shown, in the workers' config files")
    .option('--probe <path>', 'asked to find out whether it is ready')
    .option('--probe-data <json>', 'posted there; without it the path is asked with GET', json)
    .option('--initial-delay <seconds>', 'failures so soon only mean that it starts', number)
    .addOption(states.choices(['ready', 'draining']))
    .option(
      '--ttl <duration>',
      'it is gone unless it is put again within: 30s, 1m30s',
      milliseconds,
    )
    .option('-f, --file <file>', 'its fields in YAML or JSON; - is standard input; options win');
}

/** The body of the PUT. Its gateway judges it; here only what an option cannot mean is refused. */
export async function putBody(options: PutOptions): Promise<Body> {
  const { file, pool, url } = options;
  if (file === undefined && (pool === undefined || url === undefined)) {
    throw usage('a replica needs --pool and --url, or -f FILE with both');
  }
  const given = file === undefined ? {} : await fromFile(file);
  const { protocol, model, maxInflight, price, zone, spot, credentials, state, ttl } = options;
  const own = {
    ...{ pool, url, protocol, model, max_inflight: maxInflight, price, zone, spot, credentials },
    ...{ readiness_probe: probeOf(options, given.readiness_probe), state, ttl_ms: ttl },
  };
  const isGiven = ([, value]: [string, unknown]) => value !== undefined;
  return { ...given, ...Object.fromEntries(Object.entries(own).filter(isGiven)) };
}

/** Reading YAML takes more than the rest of the command. */
async function fromFile(file: string): Promise<Body> {
  const { readReplicaFile } = await import('./replica-file.ts');
  return readReplicaFile(file);
}

/** The probe of the options over that of the file; undefined where no option says anything. */
function probeOf({ probe: path, probeData, initialDelay }: PutOptions, given: unknown): unknown {
  const own = {
    ...(path !== undefined && { path }),
    ...(probeData !== undefined && { post_data: probeData }),
    ...(initialDelay !== undefined && { initial_delay_seconds: initialDelay }),
  };
  if (Object.keys(own).length === 0) return undefined;
  const before = typeof given === 'string' ? { path: given } : given;
  if (path === undefined && before === undefined) {
    throw usage('--probe-data and --initial-delay belong to a probe: --probe PATH');
  }
  return typeof before === 'object' ? { ...before, ...own } : own;
}

function json(text: string): string {
  try {
    JSON.parse(text);
    return text;
  } catch {
    throw new InvalidArgumentError('not JSON');
  }
}

export function usage(message: string): CommandError {
  return new CommandError('usage', message, exits.trouble);
}
