import { createHash } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { parseBaggage, parsePriority, validateLabels } from '../policy/index.ts';
import { type IdempotencyKey, readKey } from './idempotency.ts';

declare module 'fastify' {
  /** The API key that the request came with is set before its body is read. */
  interface FastifyRequest extends Key {}
}

/** What is known of an API key. */
export interface Key {
  keyLabels: Readonly<Record<string, string>>;
  /** Tells the key from others without giving it away; '' where there are none. */
  keyId: string;
  /** Whether it may change what is shared; everybody may where there are no keys. */
  isAdmin: boolean;
}

/** What a request says of itself outside its body. */
export interface Caller {
  /** The key's labels over the headers' over `bodyLabels`. */
  readonly labels: Readonly<Record<string, string>>;
  readonly controlPoint: string | undefined;
  readonly priority: number | undefined;
  /** Labels that its key set. */
  readonly boundLabels: readonly string[];
  /** Tells its key from others; '' where there are none. */
  readonly keyId: string;
  readonly timeoutMs: number | undefined;
}

/** @throws SluiceError invalid_request that names the header. */
export function readCaller(
  request: FastifyRequest,
  config: Config,
  bodyLabels: Readonly<Record<string, string>> = {},
): Caller {
  const header = one(request, 'sluice-labels');
  const headerLabels = header === undefined ? {} : parseBaggage(header, config.limits);
  const priority = one(request, 'sluice-priority');
  return {
    labels: validateLabels({ ...bodyLabels, ...headerLabels, ...request.keyLabels }, config.limits),
    controlPoint: readControlPoint(one(request, 'sluice-control-point'), 'Sluice-Control-Point'),
    priority: priority === undefined ? undefined : parsePriority(priority, 'Sluice-Priority'),
    boundLabels: Object.keys(request.keyLabels),
    keyId: request.keyId,
    timeoutMs: readTimeout(one(request, 'sluice-timeout-ms'), 'Sluice-Timeout-Ms', config),
  };
}

/** The key under which a repeat of the request is known, or undefined. */
export function readIdempotencyKey(
  request: FastifyRequest,
  content: unknown,
): IdempotencyKey | undefined {
  const key = one(request, 'idempotency-key');
  return key === undefined ? undefined : readKey(key, request.keyId, content);
}

/** A wait in ms: a whole number from 1 to the configured maximum. */
export function readTimeout(given: unknown, param: string, config: Config): number | undefined {
  if (given === undefined) return undefined;
  const max = config.timeouts.maxTimeoutMs;
  const text = typeof given === 'number' || typeof given === 'string' ? String(given) : '';
  const ms = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!(ms >= 1 && ms <= max)) {
    throw new SluiceError('invalid_request', `${param} must be 1 to ${max} whole milliseconds`, {
      param,
    });
  }
  return ms;
}

export function readControlPoint(given: unknown, param: string): string | undefined {
  if (given === undefined) return undefined;
  if (typeof given !== 'string' || !/^[\w.:/-]{1,128}$/.test(given)) {
    const right = 'must be 1 to 128 letters, digits or any of _ . : / -';
    throw new SluiceError('invalid_request', `${param} ${right}`, { param });
  }
  return given;
}

/**
 * Looks up API keys; undefined for one that is not known. Without configured keys everyone may call. Keys
 * are found by their digest: how long that takes tells nothing about a key.
 */
export function keyFinder(config: Config): (given: string | undefined) => Key | undefined {
  const digest = (text: string) => createHash('sha256').update(text).digest('base64url');
  const keys = new Map(
    config.apiKeys.map(({ key, labels, admin }) => [
      digest(key),
      // Enough to tell keys apart, and it is kept with each request.
      { keyLabels: labels, keyId: digest(key).slice(0, 12), isAdmin: admin },
    ]),
  );
  return (given) => {
    if (keys.size === 0) return { keyLabels: {}, keyId: '', isAdmin: true };
    return given === undefined ? undefined : keys.get(digest(given));
  };
}

/** Reads the API key of requests over HTTP. @throws SluiceError unauthorized */
export function keyReader(config: Config): (request: FastifyRequest) => Key {
  const find = keyFinder(config);
  return (request) => {
    const given = /^Bearer +(\S+) *$/i.exec(one(request, 'authorization') ?? '')?.[1];
    const found = find(given);
    if (found) return found;
    throw new SluiceError('unauthorized', 'a valid `Authorization: Bearer <key>` is needed');
  };
}

/** @throws SluiceError forbidden */
export function checkAdmin(request: FastifyRequest, what: string): void {
  if (request.isAdmin) return;
  throw new SluiceError('forbidden', `this key may not ${what}; one with \`admin: true\` may`);
}

function one(request: FastifyRequest, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(',') : value;
}
