/**
 * Which request goes where: to one of the three protocols, whose own shape its errors then have, or
 * to the simulator's own pages (`/sim/...`, `/healthz`).
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { SluiceError } from '../errors.ts';
import type { FaultSwitch } from './faults.ts';
import { parseJson, readBody, sendError, sendPage } from './http.ts';
import { ollama } from './ollama.ts';
import { openai } from './openai.ts';
import { errorOf, type Replica, servePrompt } from './prompt.ts';
import type { Catalog, Incoming, Page, Protocol } from './protocol.ts';
import { jsonPage } from './protocol.ts';
import { ray } from './ray.ts';

/** What the routes work on. */
export interface Parts extends Replica {
  readonly catalog: Catalog;
  readonly faults: FaultSwitch;
  /** The simulator's own pages need these of it. */
  readonly control: {
    state(): unknown;
    reset(): void;
    setFault(input: unknown): Promise<void>;
  };
}

const protocols: readonly Protocol[] = [ollama, openai, ray];

/** Answer one request. Never throws; a prompt is answered later, when its tokens are written. */
export async function route(
  parts: Parts,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  let shape = plainError;
  try {
    const url = urlOf(request);
    const protocol = protocols.find(({ owns }) => owns(url.pathname));
    if (protocol) {
      shape = protocol.error;
      await serveProtocol(parts, protocol, url, request, response);
    } else {
      await serveOwn(parts, url.pathname, request, response);
    }
  } catch (cause) {
    if (response.destroyed) return; // the client left
    const error =
      cause instanceof SluiceError
        ? cause
        : new SluiceError('internal', 'a bug in the simulator', { cause });
    if (response.headersSent) response.destroy();
    else sendError(response, error, shape(error));
  }
}

async function serveProtocol(
  parts: Parts,
  protocol: Protocol,
  url: URL,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  const parse = protocol.prompts[`${method} ${url.pathname}`];
  const page = protocol.pages[`${method} ${url.pathname}`];
  if (parse) {
    const { call, text } = await takePrompt(parts, response, async () => {
      const incoming = await readIncoming(parts, url, request);
      return { call: parse(incoming, parts.catalog), text: incoming.text };
    });
    const fault = parts.faults.draw('prompt', text ?? url.search);
    servePrompt(parts, { path: url.pathname, call, fault, text }, request, response);
  } else if (page) {
    if (hitsProbe(parts)) return;
    sendPage(response, 200, page(await readIncoming(parts, url, request), parts.catalog));
  } else {
    throw noRoute(protocol, url.pathname);
  }
}

async function serveOwn(
  parts: Parts,
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { control, settings } = parts;
  switch (`${request.method} ${path}`) {
    case 'GET /healthz':
      if (!hitsProbe(parts)) sendPage(response, 200, jsonPage({ status: 'ok' }));
      return;
    case 'GET /sim/state':
      sendPage(response, 200, jsonPage(control.state()));
      return;
    case 'POST /sim/reset':
      control.reset();
      sendPage(response, 200, jsonPage(control.state()));
      return;
    case 'POST /sim/faults':
      await control.setFault(parseJson(await readBody(request, settings.bodyBytes)));
      sendPage(response, 200, jsonPage({ fault: parts.faults.current }));
      return;
    default:
      throw new SluiceError('not_found', `there is nothing at ${path}`);
  }
}

/** Read a prompt; one that is not taken is counted as rejected. */
async function takePrompt<Taken>(
  parts: Parts,
  response: ServerResponse,
  read: () => Promise<Taken>,
): Promise<Taken> {
  const { ledger, settings } = parts;
  try {
    const taken = await read();
    // Gone before it was taken: its `close`, which would end it, has been and does not come again.
    if (response.destroyed) throw new SluiceError('cancelled', 'the client left');
    const { running, queued } = ledger.counts();
    if (running >= settings.gpu.slots && queued >= settings.maxQueued) {
      const message = 'too many prompts wait already';
      throw new SluiceError('unavailable', message, { retryAfterMs: 1000 });
    }
    return taken;
  } catch (error) {
    ledger.reject();
    throw error;
  }
}

/** Whether a fault with scope `all` leaves this request without an answer; it may throw instead. */
function hitsProbe({ faults }: Parts): boolean {
  const fault = faults.draw('probe');
  if (!fault) return false;
  if (fault.mode === 'hang') return true;
  throw errorOf(fault);
}

async function readIncoming(parts: Parts, url: URL, request: IncomingMessage): Promise<Incoming> {
  const hasBody = request.method === 'POST';
  const text = hasBody ? await readBody(request, parts.settings.bodyBytes) : undefined;
  return { query: url.searchParams, body: text === undefined ? undefined : parseJson(text), text };
}

function urlOf(request: IncomingMessage): URL {
  const url = URL.parse(request.url ?? '/', 'http://simulator');
  if (url) return url;
  throw new SluiceError('invalid_request', 'the URL is malformed');
}

/** For paths of no protocol, and for the simulator's own. */
function plainError(error: SluiceError): Page {
  const { code, message, param } = error;
  return jsonPage({ error: { code, message, param: param ?? null } });
}

function noRoute(protocol: Protocol, path: string): SluiceError {
  const routes = [...Object.keys(protocol.pages), ...Object.keys(protocol.prompts)];
  return routes.some((name) => name.endsWith(` ${path}`))
    ? new SluiceError('method_not_allowed', `${path} does not take this method`)
    : new SluiceError('not_found', `there is nothing at ${path}`);
}
