import type { Command } from 'commander';
import type { WaitsFor } from '../admission/index.ts';
import type { Http } from '../client/http.ts';
import { formatDuration } from '../duration.ts';
import { type Exit, exits } from './exits.ts';
import { ask, printJson, type ServerOptions, withServer } from './server.ts';
import { type Cell, inSeconds, table } from './table.ts';

/** Commands that look: who runs, who waits and for what. */
export function lookCommands(program: Command): void {
  withServer(program.command('queue'))
    .description('who runs and who waits, at each limit and in each workload')
    .argument('[control-point]', 'only this one')
    .option('--requests', 'each of them, oldest first: its id, whose it is, how long it may go on')
    .addHelpText(
      'after',
      `
  $ sluice queue
  $ sluice queue mistral-prompt --json | jq .waiting
  $ sluice queue mistral-prompt --requests`,
    )
    .action((controlPoint: string | undefined, options: ServerOptions & { requests?: true }) =>
      ask(options, async (http) => {
        if (options.requests) return showRequests(http, controlPoint, options);
        const only = controlPoint === undefined ? '' : `/${encodeURIComponent(controlPoint)}`;
        const answer = await http.call('GET', `/v1/queues${only}`);
        const queues = controlPoint === undefined ? answer.queues : [answer];
        if (options.json) printJson(answer);
        else console.log((queues as QueueView[]).map(queueText).join('\n\n'));
        return exits.ok;
      }),
    );

  withServer(program.command('explain'))
    .description('where a request is, what it waits for, and who holds that')
    .argument('<id>', 'of a prompt (its Sluice-Request-Id), a job or a flow')
    .addHelpText(
      'after',
      '\nThe start is an estimate from this moment; --json says on which basis.\n\n  $ sluice explain main-0198f1a2b3c4',
    )
    .action((id: string, options: ServerOptions) =>
      ask(options, async (http) => {
        const answer = await http.call('GET', `/v1/requests/${encodeURIComponent(id)}`);
        if (options.json) printJson(answer);
        else console.log(requestText(answer as unknown as RequestView));
        return exits.ok;
      }),
    );
}

/** What `src/gateway/views.ts` shows. */
interface QueueView {
  readonly control_point: string;
  readonly paused?: boolean;
  readonly waiting: number;
  readonly limits: readonly {
    readonly key: string;
    readonly limit: number;
    /** It is what the pools take now. */
    readonly auto?: true;
    readonly fill_amount?: number;
    readonly interval_ms?: number;
    readonly in_flight?: number;
    readonly waiting?: number;
  }[];
  readonly workloads: readonly {
    readonly name: string;
    readonly priority: number;
    readonly waiting: number;
    readonly in_flight: number;
  }[];
}

function queueText(view: QueueView): string {
  const { control_point, paused, waiting, limits, workloads } = view;
  const isPaused = paused ? '; it is paused' : '';
  const parts = [`${control_point}: ${waiting} ${waiting === 1 ? 'waits' : 'wait'}${isPaused}`];
  if (limits.length === 0) parts.push('no policy: bound by its pool alone');
  else {
    const rows = limits.map((limit): Cell[] => [
      limit.key,
      limit.in_flight ?? '-',
      limitText(limit),
      limit.waiting ?? '-',
    ]);
    parts.push(table(['LIMIT', 'IN FLIGHT', 'OF', 'WAITING'], rows));
  }
  if (workloads.length > 0) {
    const rows = workloads.map(({ name, priority, waiting, in_flight }) => {
      return [name, priority, waiting, in_flight];
    });
    parts.push(table(['WORKLOAD', 'PRIORITY', 'WAITING', 'IN FLIGHT'], rows));
  }
  return parts.join('\n');
}

function limitText({ limit, auto, ...bucket }: QueueView['limits'][number]): Cell {
  const { fill_amount, interval_ms = 0 } = bucket;
  if (auto) return `${limit} (auto)`;
  if (fill_amount === undefined) return limit;
  return `${limit} tokens, ${fill_amount} more each ${formatDuration(interval_ms)}`;
}

interface RequestsView {
  readonly requests: readonly {
    readonly id: string;
    readonly kind: string;
    readonly state: string;
    readonly workload?: string;
    readonly fairness_key?: string;
    readonly tokens: number;
    readonly created_at: number;
    readonly ends_by?: number;
  }[];
  readonly truncated: boolean;
}

async function showRequests(
  http: Http,
  controlPoint: string | undefined,
  { json }: ServerOptions,
): Promise<Exit> {
  const only =
    controlPoint === undefined ? '' : `?control_point=${encodeURIComponent(controlPoint)}`;
  const answer = await http.call('GET', `/v1/requests${only}`);
  if (json) {
    printJson(answer);
    return exits.ok;
  }
  const { requests, truncated } = answer as unknown as RequestsView;
  const now = Date.now();
  const rows = requests.map(({ id, kind, state, ...of }): Cell[] => [
    ...[id, kind, state, of.workload ?? '', of.fairness_key ?? '', of.tokens],
    ...[
      inSeconds(now - of.created_at),
      of.ends_by === undefined ? '' : inSeconds(of.ends_by - now),
    ],
  ]);
  const head = ['ID', 'KIND', 'STATE', 'WORKLOAD', 'FAIRNESS KEY', 'TOKENS', 'AGE', 'LEASE'];
  console.log(rows.length === 0 ? 'nothing runs and nothing waits' : table(head, rows));
  if (truncated) console.error('sluice: there are more than are shown');
  return exits.ok;
}

interface RequestView {
  readonly id: string;
  readonly state: string;
  readonly position: number;
  readonly ahead: number;
  readonly waits_for: readonly WaitsFor[];
  readonly estimated_start_ms: number;
}

function requestText(view: RequestView): string {
  const { id, state, position, ahead, waits_for, estimated_start_ms } = view;
  if (state !== 'waiting') return `${id}: ${state}`;
  const others = ahead === 1 ? '1 other' : `${ahead} others`;
  const lines = [
    `${id}: waiting at position ${position} of its queue, ${others} likely to go before it`,
    ...waits_for.map((waitsFor) => `  waits for   ${waitsForText(waitsFor)}`),
    `  starts in   about ${formatDuration(Math.round(estimated_start_ms))}`,
  ];
  return lines.join('\n');
}

function waitsForText(waitsFor: WaitsFor): string {
  const { limiter, limit, in_flight, held_by = [], tokens, refill_ms, held_for } = waitsFor;
  if (limiter.startsWith('paused:')) return 'its control point is paused: sluice resume';
  const parts: string[] = [];
  if (in_flight !== undefined) parts.push(`${in_flight} of ${limit} taken`);
  if (held_by.length > 0) parts.push(`held by ${held_by.join(', ')}`);
  if (tokens !== undefined) parts.push(`${Math.floor(tokens)} of ${limit} tokens there`);
  if (refill_ms !== undefined) parts.push(`enough in ${formatDuration(Math.ceil(refill_ms))}`);
  if (held_for !== undefined) parts.push(`the next are for ${held_for}`);
  return `${limiter}: ${parts.join('; ')}`;
}
