import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { type Admission, idempotencyKey } from '../admission/index.ts';
import { SluiceError } from '../errors.ts';

/** A repeat of a request is known by the key that its client gave it. */
export interface IdempotencyKey {
  /** Of the client's key and of who the client is: keys of two callers never meet. */
  readonly name: string;
  /** Of everything that is asked: another one under the same key is an error. */
  readonly content: string;
}

/** `caller`: tells callers apart. */
export function readKey(key: string, caller: unknown, content: unknown): IdempotencyKey {
  if (key.length < 1 || key.length > 256) {
    const param = 'Idempotency-Key';
    throw new SluiceError('invalid_request', `${param} must have 1 to 256 characters`, { param });
  }
  return { name: digest([caller, key]), content: digest(content) };
}

/** How long a claim stands before its request is taken in, ms. */
const claimMs = 60_000;

/** Which request a key stands for. */
export class IdempotencyKeys {
  readonly #admission: Admission;
  readonly #redis: Redis;
  readonly #keepMs: number;

  /** `keepMs`: how long what remains of the requests is kept. */
  constructor(admission: Admission, redis: Redis, keepMs: number) {
    this.#admission = admission;
    this.#redis = redis;
    this.#keepMs = keepMs;
  }

  /**
   * The id of the key's request: `id` when it is new, or when `failed`, which came to nothing, is what
   * it stands for. @throws SluiceError idempotency_conflict
   */
  async claim(key: IdempotencyKey, id: string, failed?: string): Promise<string> {
    const { name, content } = key;
    const known = await this.#admission.claim(name, { id, content, failed, keepMs: claimMs });
    if (known.content === content) return known.id;
    throw new SluiceError(
      'idempotency_conflict',
      'another request was sent with this Idempotency-Key; use a new key for a new request',
      { param: 'Idempotency-Key' },
    );
  }

  /** Its request was taken in, and ends within `longestMs`: the key is kept for longer than that. */
  async keep(key: IdempotencyKey, longestMs: number): Promise<void> {
    const name = idempotencyKey(this.#admission.domain, key.name);
    await this.#redis.pexpire(name, longestMs + this.#keepMs + claimMs);
  }
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('base64url');
}
