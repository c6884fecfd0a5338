/**
 * The one place that translates between what clients speak and what replicas speak: any client at
 * any replica. Pure; it neither sends nor receives.
 */

export { type ClientFraming, framingFor, serverSentEvents } from './client.ts';
export { decodePrompt, encodePrompt } from './envelope.ts';
export { exchangeFor, isNative } from './exchange.ts';
export { type Splitter, splitter } from './framing.ts';
export {
  type ClientPrompt,
  type Exchange,
  type Framing,
  MalformedReply,
  type Protocol,
  ReplicaError,
  type Reply,
  type StreamReader,
  type Target,
  type WholeReply,
} from './types.ts';
