import type { Command } from 'commander';
import { Http } from '../client/http.ts';
import { formatDuration } from '../duration.ts';
import { CommandError, type Exit, exits, report } from './exits.ts';
import { type Body, type PutOptions, putBody, usage, withPut } from './replica-put.ts';
import {
  type PoolView,
  poolsText,
  type ReplicaView,
  replicasText,
  standing,
} from './replica-text.ts';
import { ask, ending, listCommandOf, printJson, type ServerOptions, withServer } from './server.ts';
import { inSeconds } from './table.ts';
import { milliseconds } from './values.ts';

/** Commands for replicas: which there are, who joins, and who goes. */
export function replicaCommands(program: Command): void {
  const replicas = program
    .command('replicas')
    .description('the inference servers: how they are, who joins, who drains, who goes')
    .addHelpText(
      'after',
      `
Without a command it lists them; \`sluice replicas list --help\` has the options for that.
Every command asks the gateway of SLUICE_URL with the key of SLUICE_API_KEY; those that change
something take a key with admin: true where there are api_keys.

  $ sluice replicas
  $ sluice replicas --pool mistral --json
  $ sluice replicas put gpu-7 --pool mistral --url http://gpu-7:8000 --protocol openai --ttl 30s --renew
  $ sluice replicas drain gpu-7 --deadline 2m`,
    );
  listCommand(replicas);
  putCommand(replicas);
  drainCommand(replicas);
  readyCommand(replicas);
  removeCommand(replicas);
}

function listCommand(replicas: Command): void {
  withServer(listCommandOf(replicas))
    .description('the replicas of each pool, and what the pools take now')
    .option('--pool <name>', 'only this one')
    .addHelpText(
      'after',
      `
STATE is ready, draining (no new prompts) or leaving. HEALTH is starting, up, down, or trial: one
prompt tries it. A pool takes OF prompts: the smaller of what its workers and its replicas take, and
0 while it is paused.

  $ sluice replicas
  $ sluice replicas list --pool mistral`,
    )
    .action((options: ServerOptions & { readonly pool?: string }) =>
      ask(options, async (http) => {
        const answer = onlyOf(options.pool, await http.call('GET', '/v1/replicas'));
        if (options.json) printJson(answer);
        else {
          console.log(replicasText(answer.replicas, Date.now()));
          if (answer.pools.length > 0) console.log(`\n${poolsText(answer.pools)}`);
        }
        return exits.ok;
      }),
    );
}

interface ListView {
  readonly replicas: readonly ReplicaView[];
  readonly pools: readonly PoolView[];
}

function onlyOf(pool: string | undefined, given: Record<string, unknown>): ListView {
  const answer = given as unknown as ListView;
  if (pool === undefined) return answer;
  const of = <Item extends { readonly pool: string }>(list: readonly Item[]) =>
    list.filter((item) => item.pool === pool);
  if (of(answer.pools).length > 0) {
    return { ...answer, replicas: of(answer.replicas), pools: of(answer.pools) };
  }
  const known = answer.pools.map((one) => one.pool).join(', ');
  throw new CommandError('not_found', `there is no pool ${pool}; known: ${known}`, exits.refused);
}

interface PutCommandOptions extends PutOptions, Omit<ServerOptions, 'url'> {
  readonly gateway: string;
  readonly renew?: true;
  readonly leave?: true;
}

function putCommand(replicas: Command): void {
  withServer(withPut(replicas.command('put')), '--gateway')
    .description('put a replica into a pool, or change it, while prompts run')
    .argument('<id>', 'its name in the cluster')
    .option(
      '--renew',
      'with --ttl: put it again every third of that; on SIGINT or SIGTERM remove it',
    )
    .option('--leave', 'with --renew: leave it there on a signal; it is gone after its --ttl')
    .addHelpText(
      'after',
      `
--url is the replica's here; the gateway's is --gateway, or SLUICE_URL.
What is left out has its default, also where the replica was put with another value before; only
its state stays. Put over a replica of a config file, or of DNS, it stays until it is removed.

Beside a replica, as long as it runs; gateways may be away meanwhile:
  $ sluice replicas put gpu-7 --pool mistral --url http://gpu-7:8000 --protocol openai \\
      --max-inflight 32 --probe /v1/models --ttl 30s --renew

Once, for good, with a probe as SkyServe has it:
  $ sluice replicas put gpu-8 --pool mistral --url http://gpu-8:8000 --protocol openai \\
      --probe /v1/chat/completions --initial-delay 1800 \\
      --probe-data '{"model": "mistral", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}'
  $ sluice replicas put gpu-9 -f gpu-9.yaml`,
    )
    .action((id: string, options: PutCommandOptions) =>
      ending(options, async () => {
        const body = await putBody(options);
        const http = new Http({ ...options, url: options.gateway });
        if (options.renew) return renew(http, id, body, options);
        if (options.leave) throw usage('--leave belongs to --renew');
        tellPut(await http.call('PUT', pathOf(id), { body }), options);
        return exits.ok;
      }),
    );
}

function tellPut(answer: Record<string, unknown>, { json }: PutCommandOptions, then = ''): void {
  if (json) {
    printJson(answer);
    return;
  }
  const { warnings = [], ...view } = answer as unknown as ReplicaView & {
    readonly warnings?: readonly string[];
  };
  const { id, pool } = view;
  console.log(`replica ${id} is in pool ${pool}: ${standing(view)}${then}`);
  for (const warning of warnings) console.error(`warning: replica ${id}: ${warning}`);
}

/** Keeps it there until a signal. */
async function renew(
  http: Http,
  id: string,
  body: Body,
  options: PutCommandOptions,
): Promise<Exit> {
  const { ttl_ms: ttlMs } = body;
  if (typeof ttlMs !== 'number') throw usage('--renew needs --ttl: how long it stays without it');
  const { keepRenewed, leave, renewalMs } = await import('./replica-renew.ts');
  const leaving = new AbortController();
  // Whoever starts us may pass a signal on that has reached us already: the next ones change nothing.
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => leaving.abort());
  const json = options.json === true;
  await keepRenewed({
    http,
    path: pathOf(id),
    body,
    ttlMs,
    leaving: leaving.signal,
    onPut: (answer) =>
      tellPut(answer, options, `; put again every ${formatDuration(renewalMs(ttlMs))}`),
    onAway: (error) => {
      if (json) report(error, json);
      else console.error(`sluice: replica ${id} is not renewed, it is tried again: ${said(error)}`);
    },
    onBack: () => {
      if (json) console.error(JSON.stringify({ renewed: { id } }, null, 2));
      else console.error(`sluice: replica ${id} is renewed again`);
    },
  });
  if (options.leave) return exits.ok;
  try {
    const removed = await leave(http, pathOf(id));
    tellRemoved(id, removed ?? { id, state: 'removed' }, json);
    return exits.ok;
  } catch (error) {
    const left = `replica ${id} could not be removed: it is gone within ${formatDuration(ttlMs)}`;
    if (!json) console.error(`sluice: ${left}`);
    throw error;
  }
}

function said(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function drainCommand(replicas: Command): void {
  withServer(replicas.command('drain'))
    .description('no new prompts; what still runs there after the deadline moves to others')
    .argument('<id>')
    .option(
      '--deadline <duration>',
      "from now: 2m, 30s; the gateway's timeouts.drain otherwise",
      milliseconds,
    )
    .addHelpText(
      'after',
      `
It drains until \`sluice replicas ready\`, also where it is put again meanwhile.

  $ sluice replicas drain gpu-7 --deadline 2m`,
    )
    .action((id: string, options: ServerOptions & { readonly deadline?: number }) =>
      ask(options, async (http) => {
        const { deadline: deadline_ms } = options;
        const body = deadline_ms === undefined ? undefined : { deadline_ms };
        const answer = await http.call('POST', `${pathOf(id)}/drain`, { body });
        if (options.json) printJson(answer);
        else console.log(drainText(answer as unknown as ReplicaView, Date.now()));
        return exits.ok;
      }),
    );
}

function drainText({ id, in_flight, drain_until }: ReplicaView, now: number): string {
  if (in_flight === 0) return `replica ${id} drains: nothing runs there`;
  const late = `what still runs in ${inSeconds((drain_until ?? now) - now)} moves to others`;
  return `replica ${id} drains: ${running(in_flight)}; ${late}`;
}

function readyCommand(replicas: Command): void {
  withServer(replicas.command('ready'))
    .description('one that drains takes prompts again')
    .argument('<id>')
    .addHelpText('after', '\n  $ sluice replicas ready gpu-7')
    .action((id: string, options: ServerOptions) =>
      ask(options, async (http) => {
        const answer = await http.call('POST', `${pathOf(id)}/ready`);
        if (options.json) printJson(answer);
        else console.log(`replica ${id} is ${standing(answer as unknown as ReplicaView)}`);
        return exits.ok;
      }),
    );
}

function removeCommand(replicas: Command): void {
  withServer(replicas.command('remove'))
    .description('take a replica out; what runs there goes on to its end')
    .argument('<id>')
    .addHelpText(
      'after',
      `
One of a config file comes back when a gateway starts with it, one of DNS at the next look-up,
and one that puts itself with --renew at its next turn: drain those instead.

  $ sluice replicas remove gpu-7`,
    )
    .action((id: string, options: ServerOptions) =>
      ask(options, async (http) => {
        tellRemoved(id, await http.call('DELETE', pathOf(id)), options.json === true);
        return exits.ok;
      }),
    );
}

function tellRemoved(id: string, answer: Record<string, unknown>, json: boolean): void {
  const { in_flight = 0 } = answer as { readonly in_flight?: number };
  if (json) printJson(answer);
  else if (in_flight === 0) console.log(`replica ${id} is removed`);
  else console.log(`replica ${id} goes with its last prompt: ${running(in_flight)}`);
}

function running(count: number): string {
  return count === 1 ? '1 prompt runs there' : `${count} prompts run there`;
}

function pathOf(id: string): string {
  return `/v1/replicas/${encodeURIComponent(id)}`;
}
