import { createHash } from 'node:crypto';
import type { Admission } from '../../admission/index.ts';
import type { Config } from '../../config.ts';
import { SluiceError } from '../../errors.ts';
import type { Key } from '../caller.ts';
import type {
  CacheChangeResponse,
  CacheDeleteRequest,
  CacheEntry,
  CacheLookupRequest,
  CacheLookupResponse,
  CacheUpsertRequest,
  Duration,
  KeyChange,
  KeyLookup,
} from './messages.ts';

/**
 * The cache that Aperture's SDKs bring along: results of a control point, and global entries, each with a
 * time to live. Entries are an API key's own. What is wrong with an entry is said in the response, for
 * that entry.
 */

/** Keys of one call. */
const mostKeys = 100;
const keyCharacters = 1024;
const longestTtlMs = 30 * 24 * 3_600_000;

/** Names of an entry, for its caller and in Redis. */
interface Name {
  readonly key: string;
  readonly stored: string;
}

const done: KeyChange = { operation_status: 'SUCCESS', error: '' };

export class FlowCache {
  readonly #admission: Pick<Admission, 'changeCache' | 'readCache'>;
  readonly #limits: Pick<Config['limits'], 'cacheBytes' | 'bodyBytes'>;

  constructor(
    admission: Pick<Admission, 'changeCache' | 'readCache'>,
    limits: Pick<Config['limits'], 'cacheBytes' | 'bodyBytes'>,
  ) {
    this.#admission = admission;
    this.#limits = limits;
  }

  /** Undefined when no entry is asked for. @throws SluiceError invalid_request for a key that is none */
  async lookup(request: CacheLookupRequest, key: Key): Promise<CacheLookupResponse | undefined> {
    const { result, global } = namesIn(request, key);
    const names = [...result, ...global];
    if (names.length === 0) return undefined;
    const values = await this.#admission.readCache(names.map(({ stored }) => stored));
    const found = names.map((_, index) => lookedUp(values[index]));
    const [own] = result.length > 0 ? found : [];
    const others = found.slice(result.length);
    return {
      ...(own && { result_cache_response: own }),
      global_cache_responses: byKey(global, others),
    };
  }

  async upsert(request: CacheUpsertRequest, key: Key): Promise<CacheChangeResponse> {
    const { control_point, result_cache_entry: own, global_cache_entries: entries } = request;
    const names = namesIn(
      {
        control_point,
        result_cache_key: own?.key ?? '',
        global_cache_keys: Object.keys(entries),
      },
      key,
    );
    const given = [...(own && names.result.length > 0 ? [own] : []), ...Object.values(entries)];
    const all = [...names.result, ...names.global];
    const problems = given.map((entry) => this.#problemOf(entry));
    const puts = all.flatMap(({ stored }, index) => {
      const entry = given[index];
      if (!entry || problems[index] !== undefined) return [];
      return [{ name: stored, ttlMs: msOf(entry.ttl), value: entry.value.toString('base64') }];
    });
    const limitBytes = this.#limits.cacheBytes;
    if (puts.length > 0) await this.#admission.changeCache({ puts, drops: [], limitBytes });
    const changes = problems.map((problem) =>
      problem === undefined ? done : ({ operation_status: 'ERROR', error: problem } as const),
    );
    return changed(names, changes);
  }

  async remove(request: CacheDeleteRequest, key: Key): Promise<CacheChangeResponse> {
    const names = namesIn(request, key);
    const all = [...names.result, ...names.global];
    const drops = all.map(({ stored }) => stored);
    const limitBytes = this.#limits.cacheBytes;
    if (drops.length > 0) await this.#admission.changeCache({ puts: [], drops, limitBytes });
    return changed(
      names,
      all.map(() => done),
    );
  }

  #problemOf({ value, ttl }: CacheEntry): string | undefined {
    const ms = msOf(ttl);
    const most = Math.min(this.#limits.bodyBytes, this.#limits.cacheBytes / 2);
    if (value.length > most) return `the value is longer than ${most} bytes`;
    if (ms >= 1 && ms <= longestTtlMs) return undefined;
    return `ttl must be from 1 ms to ${longestTtlMs / 86_400_000} days`;
  }
}

/** Results are a control point's, global entries are not. @throws SluiceError invalid_request */
function namesIn(
  { control_point, result_cache_key, global_cache_keys }: CacheLookupRequest,
  { keyId }: Key,
): { readonly result: readonly Name[]; readonly global: readonly Name[] } {
  if (global_cache_keys.length > mostKeys) throw wrong(`at most ${mostKeys} keys in one call`);
  const nameOf = (kind: string, key: string): Name => {
    if (key === '' || key.length > keyCharacters) {
      throw wrong(`a cache key has 1 to ${keyCharacters} characters`);
    }
    const whole = JSON.stringify([keyId, kind, key]);
    return { key, stored: createHash('sha256').update(whole).digest('base64url').slice(0, 24) };
  };
  const isAsked = result_cache_key !== '';
  return {
    result: isAsked ? [nameOf(`result ${control_point}`, result_cache_key)] : [],
    global: global_cache_keys.map((key) => nameOf('global', key)),
  };
}

function lookedUp(value: string | undefined): KeyLookup {
  const isHit = value !== undefined;
  return {
    value: Buffer.from(value ?? '', 'base64'),
    lookup_status: isHit ? 'HIT' : 'MISS',
    operation_status: 'SUCCESS',
    error: '',
  };
}

function changed(
  { result, global }: ReturnType<typeof namesIn>,
  changes: readonly KeyChange[],
): CacheChangeResponse {
  const [own] = result.length > 0 ? changes : [];
  return {
    ...(own && { result_cache_response: own }),
    global_cache_responses: byKey(global, changes.slice(result.length)),
  };
}

function byKey<Value>(names: readonly Name[], values: readonly Value[]): Record<string, Value> {
  const entries = names.flatMap(({ key }, index): [string, Value][] => {
    const value = values[index];
    return value === undefined ? [] : [[key, value]];
  });
  return Object.fromEntries(entries);
}

function msOf(ttl: Duration | null): number {
  return ttl ? ttl.seconds * 1_000 + Math.floor(ttl.nanos / 1_000_000) : 0;
}

function wrong(message: string): SluiceError {
  return new SluiceError('invalid_request', message, { param: 'cache_key' });
}
