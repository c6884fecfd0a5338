export type { ReplicaCredentials } from './agents.ts';
export {
  type DnsName,
  type DnsResolver,
  type FoundReplica,
  resolveReplicas,
  systemResolver,
} from './dns.ts';
export { ReplicaFailure } from './failure.ts';
export { type Probe, type ProbeResult, probe } from './probe.ts';
export { ReplicaClient, type ReplicaReply, readText, tooLarge } from './replica.ts';
