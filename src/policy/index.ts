/**
 * The policy part: values files -> limits and schedules; labels -> workload, cost, deadline. Pure:
 * no clock, no Redis, no state, so every gateway that holds the same policies decides the same.
 */
export type { Expression, LabelMatcher, Requirement } from './match.ts';
export {
  type LimiterName,
  limitKeyOf,
  parseLimiter,
  parseQueueKey,
  pauseLimiter,
  poolLimiter,
  type QueueName,
} from './names.ts';
export { limitsOf, PolicyError, parsePolicy } from './parse.ts';
export { tokensRange } from './parts.ts';
export { nameIn, slotsPath } from './read.ts';
export { schedule } from './schedule.ts';
export type {
  Alerter,
  Bucket,
  ConcurrencyPolicy,
  Limit,
  LimitPolicy,
  Policy,
  QuotaPolicy,
  RatePolicy,
  Request,
  Schedule,
  Scheduler,
  Selector,
  Workload,
  WorkloadParameters,
} from './types.ts';
export {
  checkTokens,
  estimateTokens,
  type LabelLimits,
  parseBaggage,
  parsePriority,
  parseTokens,
  validateLabels,
} from './values.ts';
export { policyWarnings } from './warnings.ts';
