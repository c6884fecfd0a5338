/** Replicas for one test: servers on this machine, with and without TLS. */
import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer, type ServerOptions } from 'node:https';
import type { Socket } from 'node:net';
import { type AddressInfo, type Server as TcpServer, createServer as tcp } from 'node:net';
import { generate } from 'selfsigned';
import { onTestFinished } from 'vitest';
import { ReplicaClient, type ReplicaReply, readText } from '../../src/pool/index.ts';

/** The base URL of a server that answers so. */
export async function replica(answer: RequestListener): Promise<string> {
  return `http://127.0.0.1:${await listening(createServer(answer))}`;
}

export async function tlsReplica(options: ServerOptions, answer: RequestListener): Promise<string> {
  return `https://127.0.0.1:${await listening(createTlsServer(options, answer))}`;
}

/** The port of a server that does so with every connection. */
export function tcpServer(onConnection: (socket: Socket) => void): Promise<number> {
  return listening(tcp(onConnection));
}

/** A port on which nobody listens. */
export async function closedPort(): Promise<number> {
  const server = tcp();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export type Credentials = NonNullable<
  ConstructorParameters<typeof ReplicaClient>[0]
>['credentials'];

/** A client that goes with the test. */
export function clientWith(credentials?: Credentials): ReplicaClient {
  const client = new ReplicaClient(credentials && { credentials });
  onTestFinished(() => client.stop());
  return client;
}

/** What the replica answers to a GET, as a text. */
export async function got(client: ReplicaClient, url: string, credentials?: string) {
  return readText(await get(client, url, credentials), 1024 * 1024);
}

export function get(
  client: ReplicaClient,
  url: string,
  credentials?: string,
): Promise<ReplicaReply> {
  const request = { method: 'GET', path: '/x' } as const;
  const { signal } = new AbortController();
  return client.call({ url, request, credentials, signal });
}

/** A certificate for a host name that is its own authority, as PEM. */
export async function certificateFor(name: string) {
  const pems = await generate([{ name: 'commonName', value: name }], {
    extensions: [
      { name: 'basicConstraints', cA: true },
      { name: 'subjectAltName', altNames: [{ type: 2 as const, value: name }] },
    ],
  });
  return { certificate: pems.cert, key: pems.private };
}

async function listening(server: Server | TcpServer): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, 'close');
  });
  return (server.address() as AddressInfo).port;
}
