/** A configured replica in the words of its record in Redis. */
import type { PoolConfig, ReadinessProbe, ReplicaConfig } from './types.ts';

/** What its pool says of all its replicas counts where the replica says nothing of its own. */
export function replicaRecord(replica: ReplicaConfig, pool: PoolConfig) {
  const { id, url, protocol, model, maxInflight, price, zone, spot, credentials } = replica;
  const probe = replica.readinessProbe ?? pool.readinessProbe;
  return {
    id,
    url,
    protocol,
    model,
    template: pool.template,
    max_inflight: maxInflight,
    price,
    zone,
    spot,
    credentials,
    probe: probe && JSON.stringify(probeRecord(probe)),
  };
}

function probeRecord(probe: ReadinessProbe) {
  return {
    path: probe.path,
    post_data: probe.postData,
    initial_delay_ms: probe.initialDelayMs,
    timeout_ms: probe.timeoutMs,
    period_ms: probe.periodMs,
    success_threshold: probe.successThreshold,
    failure_threshold: probe.failureThreshold,
  };
}
