export {
  ReplicaClient,
  ReplicaFailure,
  type ReplicaReply,
  readText,
  tooLarge,
} from './replica.ts';
