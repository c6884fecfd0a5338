import { Server, ServerCredentials } from '@grpc/grpc-js';
import type { Config } from '../../config.ts';
import { SluiceError } from '../../errors.ts';
import { gatekeeper } from './gatekeeper.ts';
import { addServices, keyInMetadata, type ServiceParts } from './services.ts';

/** Aperture's service, and OpenTelemetry's traces, which end the flows of older clients. */
export interface GrpcServer {
  /** `host:port`, as clients take it. */
  readonly address: string;
  /** Takes no new calls; resolves when those that wait have their answers. */
  stop(): Promise<void>;
  /** Cuts off whoever is left. */
  cut(): void;
}

/** A batch of spans has 512 by default, each with a whole answer of `Check` in it. */
const mostMessageBytes = 4 * 1024 * 1024;

/** Between two signs of life of a connection, and how long its answer may take, ms. */
const ping = { everyMs: 10_000, answerMs: 5_000 } as const;

/** @throws SluiceError when the port is taken */
export async function startGrpc(parts: ServiceParts): Promise<GrpcServer> {
  const { config, log } = parts;
  const onRefused = (method: string) =>
    log.info({ code: 'unauthorized', method }, 'request refused');
  const server = new Server({
    'grpc.max_receive_message_length': mostMessageBytes,
    // A client whose machine is gone closes nothing: what waits there has to leave the queue all the same.
    'grpc.keepalive_time_ms': ping.everyMs,
    'grpc.keepalive_timeout_ms': ping.answerMs,
    interceptors: [gatekeeper(keyInMetadata(config), onRefused)],
  });
  addServices(server, parts);
  const host = config.host.includes(':') ? `[${config.host}]` : config.host;
  const port = await bind(server, `${host}:${config.grpcPort}`, config);
  const address = `${host}:${port}`;
  const stopped = Promise.withResolvers<void>();
  return {
    address,
    stop: () => {
      server.tryShutdown(() => stopped.resolve());
      return stopped.promise;
    },
    cut: () => {
      server.forceShutdown();
      // A socket that is half closed, or never came to a handshake, is waited for without end.
      stopped.resolve();
    },
  };
}

function bind(server: Server, address: string, { grpcTls }: Config): Promise<number> {
  const credentials = grpcTls
    ? ServerCredentials.createSsl(null, [
        { cert_chain: Buffer.from(grpcTls.certificate), private_key: Buffer.from(grpcTls.key) },
      ])
    : ServerCredentials.createInsecure();
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => {
      if (!error) return resolve(port);
      const message = `cannot listen on ${address} for gRPC: set GRPC_PORT to another port (0 takes a free one). ${error.message}`;
      reject(new SluiceError('unavailable', message, { cause: error }));
    });
  });
}
