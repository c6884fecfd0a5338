import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { domainKey } from '../admission/index.ts';
import { SluiceError } from '../errors.ts';

/** A repeat of a request is known by the key that its client gave it. */
export interface IdempotencyKey {
  /** Of the client's key and of who the client is: keys of two callers never meet. */
  readonly name: string;
  /** Of everything that is asked: another one under the same key is an error. */
  readonly content: string;
}

/** `caller`: what tells callers apart, such as the labels of an API key. */
export function idempotencyKey(key: string, caller: unknown, content: unknown): IdempotencyKey {
  if (key.length < 1 || key.length > 256) {
    const param = 'Idempotency-Key';
    throw new SluiceError('invalid_request', `${param} must have 1 to 256 characters`, { param });
  }
  return { name: digest([caller, key]), content: digest(content) };
}

/** Which request a key stands for: a text key in Redis for each, with a TTL. */
export class IdempotencyKeys {
  readonly #redis: Redis;
  readonly #domain: string;
  readonly #keepMs: number;

  /** `keepMs`: as long as what remains of the requests is kept. */
  constructor(redis: Redis, domain: string, keepMs: number) {
    this.#redis = redis;
    this.#domain = domain;
    this.#keepMs = keepMs;
  }

  /**
   * The id of the key's request: `id` when it is new. `failed`: the one before, which came to nothing,
   * so that of several who try again all get the same one. @throws SluiceError idempotency_conflict
   */
  async claim(key: IdempotencyKey, id: string, failed = ''): Promise<string> {
    const name = domainKey(this.#domain, `idempotency:${key.name}${failed}`);
    const value = `${id} ${key.content}`;
    const stored = await this.#redis.set(name, value, 'PX', this.#keepMs, 'NX', 'GET');
    const [known = id, content] = stored?.split(' ') ?? [];
    if (content === undefined || content === key.content) return known;
    throw new SluiceError(
      'idempotency_conflict',
      'another request was sent with this Idempotency-Key; use a new key for a new request',
      { param: 'Idempotency-Key' },
    );
  }
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('base64url');
}
