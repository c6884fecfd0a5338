export { servesPath } from './protocols.ts';
export { ReplicaClient, type ReplicaResult, type Upstream } from './replica.ts';
