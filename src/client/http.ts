import { SluiceClientError } from './errors.ts';
import { patientFetch } from './patient-fetch.ts';

/** What the client needs of `fetch`; the global one fits. */
export type Fetch = (
  url: string,
  init: {
    readonly method: string;
    readonly headers: Record<string, string>;
    readonly body?: string;
    readonly signal?: AbortSignal;
  },
) => Promise<Response>;

/** Where a gateway is, and who asks. */
export interface Connection {
  /** Of any gateway of the cluster, or of what stands before them: `http://127.0.0.1:8080`. */
  readonly url: string;
  /** Where the gateway has `api_keys`. */
  readonly apiKey?: string | undefined;
  /** In place of the client's own, which waits for an answer for as long as it takes. */
  readonly fetch?: Fetch | undefined;
}

/** The methods of Sluice's own API. */
export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

/** Calls a gateway. Everything that is not a 2xx with JSON is a {@link SluiceClientError}. */
export class Http {
  readonly url: string;
  readonly #apiKey: string | undefined;
  readonly #fetch: Fetch;

  /** @throws TypeError when the URL is none */
  constructor({ url, apiKey, fetch = patientFetch }: Connection) {
    const { protocol, username, href } = parseUrl(url);
    if (!/^https?:$/.test(protocol) || username !== '') {
      throw new TypeError('the URL of a gateway begins with http:// or https://, and has no user');
    }
    this.url = href.replace(/\/+$/, '');
    this.#apiKey = apiKey || undefined;
    this.#fetch = fetch;
  }

  /**
   * The JSON that the gateway answers. A text is sent as it is, another body as JSON. When `signal`
   * aborts, its reason is thrown and the connection is closed.
   */
  async call(
    method: Method,
    path: string,
    options: {
      readonly body?: unknown;
      readonly signal?: AbortSignal | undefined;
      /** How long to wait for the answer, where there is no signal to say so. */
      readonly deadlineMs?: number;
    } = {},
  ): Promise<Record<string, unknown>> {
    const { body, deadlineMs } = options;
    const deadline = deadlineMs === undefined ? undefined : AbortSignal.timeout(deadlineMs);
    const signal = options.signal ?? deadline;
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
    let response: Response;
    let answer: unknown;
    try {
      response = await this.#fetch(`${this.url}${path}`, {
        method,
        headers: {
          accept: 'application/json',
          ...(text !== undefined && { 'content-type': contentType(body) }),
          ...(this.#apiKey !== undefined && { authorization: `Bearer ${this.#apiKey}` }),
        },
        ...(text !== undefined && { body: text }),
        ...(signal && { signal }),
      });
      answer = readJson(await response.text());
    } catch (cause) {
      if (options.signal?.aborted) throw options.signal.reason;
      const why = deadline?.aborted ? `no answer in ${deadlineMs} ms` : whyUnreachable(cause);
      const message = `cannot reach ${this.url} (${why})`;
      throw new SluiceClientError('unreachable', message, { cause });
    }
    if (isObject(answer)) {
      if (response.ok) return answer;
      if (isObject(answer.error)) throw refusal(response, answer.error);
    }
    throw this.#stranger(response);
  }

  #stranger({ status, headers }: Response): SluiceClientError {
    const what = `${status} ${headers.get('content-type') ?? 'without a type'}`;
    const message = `${this.url} does not answer as a Sluice gateway does (${what})`;
    return new SluiceClientError('not_a_gateway', message, { status });
  }
}

function parseUrl(url: string): URL {
  try {
    return new URL(url);
  } catch (cause) {
    throw new TypeError(`${url} is no URL: it begins with http:// or https://`, { cause });
  }
}

/** Every text that is sent is a policy's. */
function contentType(body: unknown): string {
  return typeof body === 'string' ? 'application/yaml' : 'application/json';
}

function refusal(
  { status, headers }: Response,
  { code, message, param }: Record<string, unknown>,
): SluiceClientError {
  const retry = Number(headers.get('retry-after-ms') ?? Number.NaN);
  return new SluiceClientError(
    typeof code === 'string' ? code : 'internal',
    typeof message === 'string' ? message : `the gateway answered ${status}`,
    {
      status,
      retryAfterMs: Number.isFinite(retry) ? retry : undefined,
      param: typeof param === 'string' ? param : undefined,
    },
  );
}

const reasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the connection broke',
  ENOTFOUND: 'no such host',
  EAI_AGAIN: 'the name cannot be looked up',
  ETIMEDOUT: 'no answer',
  EHOSTUNREACH: 'no way to that host',
  ENETUNREACH: 'no way to that network',
  EPROTO: 'no TLS there: http:// in place of https://?',
  HPE_INVALID_CONSTANT: 'what answers is no HTTP',
};

/** Node says it in a code, of the error or of what caused it. */
function whyUnreachable(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const reason = 'code' in at ? reasons[String(at.code)] : undefined;
    if (reason !== undefined) return reason;
  }
  return error.cause instanceof Error ? error.cause.message : error.message;
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
