/**
 * A request's answer and its events, over Redis. The answer is kept in a Redis stream of its own, with
 * a TTL; what is published is only faster, so a lost message loses nothing.
 */
export { type AnswerWriter, Appender } from './appender.ts';
export {
  type Answer,
  beginning,
  type EventId,
  encodeAnswer,
  idText,
  isAfter,
  lastEvent,
  parseEventId,
  readAnswer,
  readEntries,
} from './entries.ts';
export { type End, Follower, type Piece } from './follower.ts';
export { type NodeEvent, type ProbeOrder, Subscription } from './subscription.ts';
