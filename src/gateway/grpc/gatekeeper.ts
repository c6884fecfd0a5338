import {
  Metadata,
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder,
  status,
} from '@grpc/grpc-js';
import { errorTable, SluiceError } from '../../errors.ts';
import type { Key } from '../caller.ts';
import { rejected } from './check-response.ts';

/** The key that a call came with. */
export type FindKey = (metadata: Metadata) => Key | undefined;

/**
 * Answers calls without a valid key before anything of their message is taken: who has none cannot make
 * the gateway hold any. A Check is answered with a response, as always.
 */
export function gatekeeper(find: FindKey, onRefused: (method: string) => void): ServerInterceptor {
  return ({ path }, call) => {
    const method = path.slice(path.lastIndexOf('/') + 1);
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((metadata, next) => {
        if (find(metadata)) {
          next(metadata);
          return;
        }
        onRefused(method);
        const error = unauthorized();
        if (method !== 'Check') {
          const code = errorTable[error.code].grpc;
          call.sendStatus({ code, details: error.message, metadata: null });
          return;
        }
        const question = { controlPoint: '', labelKeys: [], startedAtMs: Date.now() };
        call.sendMetadata(new Metadata());
        call.sendMessage(rejected(question, error), () => {
          call.sendStatus({ code: status.OK, details: '', metadata: null });
        });
      })
      .build();
    const responder = new ResponderBuilder().withStart((next) => next(listener)).build();
    return new ServerInterceptingCall(call, responder);
  };
}

export function unauthorized(): SluiceError {
  return new SluiceError('unauthorized', 'a valid API key is needed, as metadata x-api-key');
}
