/** Clients of Aperture, old and new, in front of a gateway. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ApertureClient } from '@fluxninja/aperture-js';
import {
  type ChannelCredentials,
  Client,
  credentials,
  loadPackageDefinition,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { generate } from 'selfsigned';
import { onTestFinished, vi } from 'vitest';

/** Spans leave after this, ms: a flow of SDK 2.5.0 ends no earlier. */
const spanDelayMs = '50';

interface Flushed {
  forceFlush(): Promise<void>;
}

/** The npm package, 2.5.0, as it is. */
export function sdk(
  address: string,
  options: { readonly apiKey?: string; readonly ca?: string } = {},
): ApertureClient {
  vi.stubEnv('OTEL_BSP_SCHEDULE_DELAY', spanDelayMs);
  const client = new ApertureClient({
    address,
    ...(options.apiKey !== undefined && { apiKey: options.apiKey }),
    channelCredentials: channel(options.ca),
  });
  onTestFinished(async () => {
    // What it still has to export would be an unhandled rejection after its shutdown.
    const { tracerProvider } = client as unknown as { tracerProvider: Flushed };
    await tracerProvider.forceFlush().catch(() => undefined);
    client.shutdown();
  });
  return client;
}

function channel(ca: string | undefined): ChannelCredentials {
  return ca === undefined ? credentials.createInsecure() : credentials.createSsl(Buffer.from(ca));
}

type Call = (request: object, options?: { deadline?: number }) => Promise<Record<string, unknown>>;

/** A client written for one test: methods by name, with names of fields as in the protocol. */
export interface RawClient {
  readonly call: (method: string) => Call;
  /** Begins a call that is to be given up. */
  readonly begin: (method: string, request: object) => { cancel(): void };
}

/** Of the protocol as newer SDKs have it, by facts of its own: see flow-end.proto. */
export function rawClient(
  address: string,
  options: { readonly apiKey?: string; ca?: string } = {},
): RawClient {
  const file = new URL('flow-end.proto', import.meta.url).pathname;
  const loaded = loadPackageDefinition(
    loadSync(file, { keepCase: true, defaults: true, enums: String, longs: Number }),
  ) as unknown as {
    aperture: { flowcontrol: { check: { v1: { FlowControlService: typeof Client } } } };
  };
  const { FlowControlService } = loaded.aperture.flowcontrol.check.v1;
  const client = new FlowControlService(address, channel(options.ca)) as unknown as Record<
    string,
    (...args: unknown[]) => { cancel(): void }
  > &
    Client;
  onTestFinished(() => client.close());
  const metadata = new Metadata();
  if (options.apiKey !== undefined) metadata.set('x-api-key', options.apiKey);
  return {
    call: (method) => (request, callOptions) =>
      new Promise((resolve, reject) => {
        const answer = (error: ServiceError | null, response: Record<string, unknown>) =>
          error ? reject(error) : resolve(response);
        client[method]?.(request, metadata, callOptions ?? {}, answer);
      }),
    begin: (method, request) => {
      const call = client[method]?.(request, metadata, {}, () => undefined);
      if (!call) throw new Error(`no method ${method}`);
      return call;
    },
  };
}

/** The bytes of a call, for what no proto file can say. */
export function rawBytes(address: string, path: string, bytes: Buffer): Promise<Buffer> {
  const client = new Client(address, credentials.createInsecure());
  onTestFinished(() => client.close());
  return new Promise((resolve, reject) => {
    const same = (buffer: Buffer) => buffer;
    client.makeUnaryRequest(path, same, same, bytes, (error, answer) =>
      error ? reject(error) : resolve(answer ?? Buffer.alloc(0)),
    );
  });
}

/** A certificate for this machine that is its own authority, in files that go with the test. */
export async function certificate(): Promise<{ ca: string; certFile: string; keyFile: string }> {
  const altNames = [
    { type: 2 as const, value: 'localhost' },
    { type: 7 as const, ip: '127.0.0.1' },
  ];
  const pems = await generate([{ name: 'commonName', value: 'localhost' }], {
    extensions: [
      { name: 'basicConstraints', cA: true },
      { name: 'subjectAltName', altNames },
    ],
  });
  const folder = await mkdtemp(join(tmpdir(), 'sluice-tls-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const [certFile, keyFile] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  await writeFile(certFile, pems.cert);
  await writeFile(keyFile, pems.private);
  return { ca: pems.cert, certFile, keyFile };
}
