/** A stand-in for a gateway: answers as a test says, and notes what it was asked. */
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { onTestFinished } from 'vitest';

export interface Asked {
  /** `POST /v1/flows` */
  readonly what: string;
  readonly body: unknown;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly response: ServerResponse;
}

/** An answer; `break` closes the connection without one, `wait` leaves it open. */
export type Answer =
  | { readonly status: number; readonly body: unknown; readonly headers?: Record<string, string> }
  | 'break'
  | 'wait';

export interface FakeGateway {
  readonly url: string;
  readonly asked: Asked[];
  /** What was asked for so far, without heads and bodies. */
  whats(): string[];
}

export async function fakeGateway(
  answer: (asked: Asked, before: number) => Answer,
): Promise<FakeGateway> {
  const asked: Asked[] = [];
  const server = createServer(async (request, response) => {
    const body = await text(request);
    const what = `${request.method} ${request.url}`;
    const json = body === '' ? undefined : (JSON.parse(body) as unknown);
    const one: Asked = { what, body: json, headers: request.headers, response };
    const before = asked.filter((other) => other.what === what).length;
    asked.push(one);
    const said = answer(one, before);
    if (said === 'wait') return;
    if (said === 'break') return void request.socket.destroy();
    response.writeHead(said.status, { 'content-type': 'application/json', ...said.headers });
    response.end(typeof said.body === 'string' ? said.body : JSON.stringify(said.body));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  return { url: `http://127.0.0.1:${port}`, asked, whats: () => asked.map(({ what }) => what) };
}

/** A flow that is admitted at once, or as the fields say. */
export function admitted(fields: object = {}): Answer {
  const body = { id: 'main-1', state: 'admitted', lease_ms: 60_000, limited: true, ...fields };
  return { status: 200, body };
}

export function refused(
  status: number,
  code: string,
  headers: Record<string, string> = {},
): Answer {
  const error = { message: `it says ${code}`, type: 'server_error', param: null, code };
  return { status, body: { error }, headers };
}

export const done: Answer = { status: 200, body: { id: 'main-1', state: 'done' } };
