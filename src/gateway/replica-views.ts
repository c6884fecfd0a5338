import type { DomainView, ProbeFields, ReplicaRecord } from '../admission/index.ts';
import { formatDuration } from '../duration.ts';
import { poolLimiter } from '../policy/index.ts';

/** What people are shown of replicas and pools. Pure. */

/** A replica, in the words in which one is put: what is left out there can be put again. */
export function replicaView(record: ReplicaRecord, view: DomainView): object {
  const { id, pool, url, protocol, model, template, max_inflight, price, zone, spot } = record;
  const { credentials, source = 'config', state, health, reason } = record;
  const { down_until, expires_at, drain_until } = record;
  const probe = view.probes.get(id);
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
    // Of the last failure, also where it is up again but has not succeeded since.
    reason,
    in_flight: view.inFlight[`replica:${id}`] ?? 0,
    down_until,
    expires_at,
    drain_until,
  };
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
    prober: view.probers[pool] ?? null,
    paused: view.pausedPools.includes(pool),
  };
}
