import { createHash } from 'node:crypto';
import type { Admission } from '../../admission/index.ts';
import type { Config } from '../../config.ts';
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

/** An entry that is asked for: where it is kept, or why it cannot be. */
interface Name {
  readonly key: string;
  readonly stored: string;
  readonly problem?: string;
}

interface Names {
  /** None or one. */
  readonly result: readonly Name[];
  readonly global: readonly Name[];
}

export class FlowCache {
  readonly #admission: Pick<Admission, 'cache'>;
  readonly #limits: Pick<Config['limits'], 'cacheBytes' | 'bodyBytes'>;

  constructor(
    admission: Pick<Admission, 'cache'>,
    limits: Pick<Config['limits'], 'cacheBytes' | 'bodyBytes'>,
  ) {
    this.#admission = admission;
    this.#limits = limits;
  }

  /** Undefined when no entry is asked for. */
  async lookup(request: CacheLookupRequest, key: Key): Promise<CacheLookupResponse | undefined> {
    const names = namesIn(request, key);
    const all = [...names.result, ...names.global];
    if (all.length === 0) return undefined;
    const sound = all.filter(({ problem }) => problem === undefined);
    const values = await this.#admission.cache.read(sound.map(({ stored }) => stored));
    const found = new Map(sound.map(({ stored }, index) => [stored, values[index]]));
    return answered(names, ({ stored, problem }) => lookedUp(found.get(stored), problem));
  }

  async upsert(request: CacheUpsertRequest, key: Key): Promise<CacheChangeResponse> {
    const { control_point, result_cache_entry: own, global_cache_entries: entries } = request;
    const result_cache_key = own?.key ?? '';
    const global_cache_keys = Object.keys(entries);
    const names = namesIn({ control_point, result_cache_key, global_cache_keys }, key);
    const problems = new Map<Name, string>();
    const puts = [...names.result, ...names.global].flatMap((name) => {
      const entry = names.result.includes(name) ? own : entries[name.key];
      const problem = name.problem ?? this.#problemOf(entry);
      if (problem !== undefined) problems.set(name, problem);
      if (!entry || problem !== undefined) return [];
      const value = entry.value.toString('base64');
      return [{ of: name, name: name.stored, ttlMs: msOf(entry.ttl), value }];
    });
    const limitBytes = this.#limits.cacheBytes;
    const kept =
      puts.length > 0 ? await this.#admission.cache.change({ puts, drops: [], limitBytes }) : [];
    for (const [index, { of }] of puts.entries()) {
      if (kept[index] === false) problems.set(of, 'there is no room for it now');
    }
    return answered(names, (name) => changed(problems.get(name)));
  }

  async remove(request: CacheDeleteRequest, key: Key): Promise<CacheChangeResponse> {
    const names = namesIn(request, key);
    const sound = [...names.result, ...names.global].filter((name) => name.problem === undefined);
    const drops = sound.map(({ stored }) => stored);
    const limitBytes = this.#limits.cacheBytes;
    if (drops.length > 0) await this.#admission.cache.change({ puts: [], drops, limitBytes });
    return answered(names, ({ problem }) => changed(problem));
  }

  #problemOf(entry: CacheEntry | null | undefined): string | undefined {
    if (!entry) return 'there is no value';
    const { value, ttl } = entry;
    const ms = msOf(ttl);
    const most = Math.min(this.#limits.bodyBytes, this.#limits.cacheBytes / 2);
    if (value.length > most) return `the value is longer than ${most} bytes`;
    if (ms >= 1 && ms <= longestTtlMs) return undefined;
    return `ttl must be from 1 ms to ${longestTtlMs / 86_400_000} days`;
  }
}

/** Results are a control point's, global entries are not; both are an API key's own. */
function namesIn(
  { control_point, result_cache_key, global_cache_keys }: CacheLookupRequest,
  { keyId }: Key,
): Names {
  const nameOf = (kind: string, key: string, index: number): Name => {
    const whole = JSON.stringify([keyId, kind, key]);
    const stored = createHash('sha256').update(whole).digest('base64url').slice(0, 24);
    if (key === '' || key.length > keyCharacters) {
      return { key, stored, problem: `a cache key has 1 to ${keyCharacters} characters` };
    }
    const isTooMany = index >= mostKeys;
    return { key, stored, ...(isTooMany && { problem: `at most ${mostKeys} keys in one call` }) };
  };
  const isAsked = result_cache_key !== '';
  return {
    result: isAsked ? [nameOf(`result ${control_point}`, result_cache_key, 0)] : [],
    global: global_cache_keys.map((key, index) => nameOf('global', key, index)),
  };
}

/** What is said of each entry, where its caller looks for it. */
function answered<Said>(
  { result, global }: Names,
  say: (name: Name) => Said,
): { result_cache_response?: Said; global_cache_responses: Record<string, Said> } {
  const [own] = result;
  return {
    ...(own && { result_cache_response: say(own) }),
    global_cache_responses: Object.fromEntries(global.map((name) => [name.key, say(name)])),
  };
}

function lookedUp(value: string | undefined, problem: string | undefined): KeyLookup {
  return {
    value: Buffer.from(value ?? '', 'base64'),
    lookup_status: value === undefined ? 'MISS' : 'HIT',
    ...changed(problem),
  };
}

function changed(problem: string | undefined): KeyChange {
  return { operation_status: problem === undefined ? 'SUCCESS' : 'ERROR', error: problem ?? '' };
}

function msOf(ttl: Duration | null): number {
  return ttl ? ttl.seconds * 1_000 + Math.floor(ttl.nanos / 1_000_000) : 0;
}
