import type { DomainView, ProbeFields, ReplicaRecord, ReplicaView } from '../admission/index.ts';
import { formatDuration } from '../duration.ts';
import { poolLimiter } from '../policy/index.ts';

/** What people are shown of replicas and pools. Pure. */

/** A replica, in the words in which one is put: what is left out there can be put again. */
export function replicaView({ record, probe, inFlight }: ReplicaView): object {
  const { id, pool, url, protocol, model, template, max_inflight, price, zone, spot } = record;
  const { credentials, source = 'config', state, health, reason } = record;
  const { down_until, expires_at, drain_until } = record;
  return {
    id,
    pool,
    url,
    protocol,
    model,
    template,
    max_inflight,
    price,
    zone,
    spot,
    credentials,
    readiness_probe: probe && probeView(probe),
    source,
    state,
    health,
    reason,
    in_flight: inFlight,
    down_until,
    expires_at,
    drain_until,
  };
}

/** The same of one among all. */
export function replicaIn(view: DomainView, record: ReplicaRecord): object {
  const inFlight = view.inFlight[`replica:${record.id}`] ?? 0;
  return replicaView({ record, probe: view.probes.get(record.id), inFlight });
}

function probeView(probe: ProbeFields): object {
  const { path, post_data, success_threshold, failure_threshold } = probe;
  return {
    path,
    post_data: post_data === undefined ? undefined : JSON.parse(post_data),
    initial_delay_seconds: probe.initial_delay_ms / 1_000,
    timeout_seconds: probe.timeout_ms / 1_000,
    period: formatDuration(probe.period_ms),
    success_threshold,
    failure_threshold,
  };
}

/** What a pool takes now, and which worker looks after its replicas. */
export function poolView(pool: string, view: DomainView): object {
  const limiter = poolLimiter(pool);
  return {
    pool,
    limit: view.limits[limiter] ?? 0,
    in_flight: view.inFlight[limiter] ?? 0,
    workers: view.members
      .filter(({ pools }) => (pools?.[pool] ?? 0) > 0)
      .map(({ id, pools }) => ({ id, takes: pools?.[pool] ?? 0 }))
      .toSorted((a, b) => (a.id < b.id ? -1 : 1)),
    // One that is gone is the prober until another one comes.
    prober: view.members.find(({ id }) => id === view.probers[pool])?.id ?? null,
    paused: view.pausedPools.includes(pool),
  };
}
