/** A stand-in for an OpenTelemetry collector: takes OTLP over HTTP and keeps the bytes. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished } from 'vitest';

export interface Collector {
  readonly url: string;
  /** All that came to a path, as Latin-1: names and values of protobuf stand in it as they are. */
  received(path: string): string;
  until(path: string, text: string): Promise<void>;
}

export async function startCollector(options: { answers: boolean }): Promise<Collector> {
  const bodies = new Map<string, string>();
  const server = createServer(async (request, response) => {
    const path = request.url ?? '';
    request.setEncoding('latin1');
    for await (const chunk of request) bodies.set(path, (bodies.get(path) ?? '') + chunk);
    if (options.answers) response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    server.close();
  });
  const received = (path: string) => bodies.get(path) ?? '';
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received,
    until: (path, text) =>
      expect.poll(() => received(path), { timeout: 10_000, interval: 20 }).toContain(text),
  };
}
