import { type Cell, inSeconds, table } from './table.ts';

/** Replicas and pools as people read them. */

/** What `src/gateway/replica-views.ts` shows. Times in ms of Redis' clock. */
export interface ReplicaView {
  readonly id: string;
  readonly pool: string;
  readonly url: string;
  readonly protocol: string;
  readonly max_inflight: number;
  readonly price?: number;
  readonly zone?: string;
  readonly spot?: boolean;
  readonly source?: string;
  readonly state: string;
  readonly health: string;
  readonly reason?: string;
  readonly in_flight: number;
  readonly down_until?: number;
  readonly expires_at?: number;
  readonly drain_until?: number;
}

export interface PoolView {
  readonly pool: string;
  readonly limit: number;
  readonly in_flight: number;
  readonly workers: readonly unknown[];
  readonly prober: string | null;
  readonly paused: boolean;
}

interface Column {
  readonly head: string;
  readonly cell: (replica: ReplicaView, now: number) => Cell;
  /** It is left out where all its cells are empty. */
  readonly isOptional?: true;
}

const columns: readonly Column[] = [
  { head: 'REPLICA', cell: ({ id }) => id },
  { head: 'POOL', cell: ({ pool }) => pool },
  { head: 'URL', cell: ({ url }) => url },
  { head: 'PROTOCOL', cell: ({ protocol }) => protocol },
  { head: 'STATE', cell: ({ state }) => state },
  { head: 'HEALTH', cell: ({ health }) => health },
  { head: 'IN FLIGHT', cell: ({ in_flight }) => in_flight },
  { head: 'OF', cell: ({ max_inflight }) => max_inflight },
  { head: 'PRICE', cell: ({ price = '' }) => price, isOptional: true },
  { head: 'ZONE', cell: ({ zone = '' }) => zone, isOptional: true },
  { head: 'SPOT', cell: ({ spot }) => (spot ? 'spot' : ''), isOptional: true },
  { head: 'SOURCE', cell: sourceText, isOptional: true },
  { head: 'WHY', cell: whyText, isOptional: true },
];

export function replicasText(replicas: readonly ReplicaView[], now: number): string {
  if (replicas.length === 0) return 'there are no replicas';
  const cells = columns.map(({ cell }) => replicas.map((replica) => cell(replica, now)));
  const isShown = columns.map(({ isOptional }, at) => {
    return !isOptional || cells[at]?.some((cell) => cell !== '');
  });
  const rows = replicas.map((_, row) =>
    cells.filter((_, at) => isShown[at]).map((ofColumn) => ofColumn[row] ?? ''),
  );
  const heads = columns.filter((_, at) => isShown[at]).map(({ head }) => head);
  return table(heads, rows);
}

export function poolsText(pools: readonly PoolView[]): string {
  const rows = pools.map(({ pool, in_flight, limit, workers, prober, paused }): Cell[] => {
    return [pool, in_flight, limit, workers.length, prober ?? '-', paused ? 'yes' : 'no'];
  });
  return table(['POOL', 'IN FLIGHT', 'OF', 'WORKERS', 'PROBER', 'PAUSED'], rows);
}

/** Where it is from, when not from a file, and how long it stays unless it is put again. */
function sourceText({ source = 'config', expires_at }: ReplicaView, now: number): string {
  if (expires_at !== undefined) return `${source}, ${inSeconds(expires_at - now)} left`;
  return source === 'config' ? '' : source;
}

/** Why it takes no prompts, or not all that it could, and until when. */
function whyText(replica: ReplicaView, now: number): string {
  const { state, health, reason, in_flight, down_until, drain_until } = replica;
  const parts: string[] = [];
  if (health !== 'up' && reason !== undefined) parts.push(reason);
  if (health === 'starting') parts.push('its probe has not succeeded yet');
  if (health === 'trial') parts.push('one prompt tries it');
  if (health === 'down' && down_until !== undefined) {
    parts.push(`tried again in ${inSeconds(down_until - now)}`);
  } else if (health === 'down') parts.push('down until its probe succeeds');
  if (state === 'leaving') parts.push('gone with its last prompt');
  if (drain_until !== undefined && in_flight > 0) {
    parts.push(`what runs there moves in ${inSeconds(drain_until - now)}`);
  }
  return parts.join('; ');
}

/** How it stands, in the middle of a line. */
export function standing({ state, health }: ReplicaView): string {
  return state === 'ready' ? `ready, ${health}` : state;
}
