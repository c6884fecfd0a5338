/** One replica as it is written: in the config file, in what DNS is a template for, and over HTTP. */
import Type, { type Static } from 'typebox';
import { checked, type Problem, problemsOf, text } from '../document.ts';
import { plainName, plainNameInWords, replicaId, url } from './parts.ts';
import { probeSchema, readProbe } from './probe.ts';
import type { ReplicaConfig, ReplicaTemplate } from './types.ts';

/** A name by itself, of a pool or of credentials. */
const name = Type.String({ pattern: plainName, expect: plainNameInWords });

/** What replicas have in common wherever they are written. */
export const replicaFields = {
  protocol: Type.Optional(Type.Enum(['ollama', 'openai', 'ray'])),
  model: Type.Optional(text(128)),
  max_inflight: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
  price: Type.Optional(Type.Number({ minimum: 0, maximum: 1_000_000_000 })),
  zone: Type.Optional(text(128)),
  spot: Type.Optional(Type.Boolean()),
  credentials: Type.Optional(name),
};

const ownFields = {
  url: url(['http', 'https'], { judge: judgeUrl }),
  ...replicaFields,
  readiness_probe: Type.Optional(probeSchema),
};

/** An entry of a pool's `replicas`. */
export const replicaSchema = Type.Object({ id: Type.Optional(replicaId), ...ownFields });

/** The body of `PUT /v1/replicas/:id`. */
export const replicaPutSchema = Type.Object({
  pool: name,
  ...ownFields,
  state: Type.Optional(Type.Enum(['ready', 'draining'])),
  ttl_ms: Type.Optional(Type.Integer({ minimum: 1000, maximum: 86_400_000 })),
});

/** A replica that registers itself, or that somebody registers or drains. */
export interface ReplicaPut {
  readonly replica: ReplicaConfig;
  /** As it was named: whether there is such a pool is not looked at, nor whether its credentials are known. */
  readonly pool: string;
  readonly state?: 'ready' | 'draining';
  /** How long it is there without being put again, in milliseconds; without it for good. */
  readonly ttlMs?: number;
}

/** What was put at this id, or every problem of it: paths are fields of the body, or `id`. */
export function readReplicaPut(
  given: unknown,
  id: string,
): { readonly put: ReplicaPut } | { readonly problems: readonly Problem[] } {
  const problems = problemsOf(replicaId, id, 'id');
  const body = checked(replicaPutSchema, given, '', problems);
  if (body === undefined || problems.length > 0) return { problems };
  const { pool, state, ttl_ms: ttlMs } = body;
  const replica = readReplica(body, id);
  return {
    put: { replica, pool, ...(state && { state }), ...(ttlMs !== undefined && { ttlMs }) },
  };
}

/** What its schema has let pass, with the defaults. */
export function readReplica(
  given: Omit<Static<typeof replicaSchema>, 'id'>,
  id: string,
): ReplicaConfig {
  const { url, readiness_probe: probe } = given;
  return {
    id,
    url,
    ...readTemplate(given),
    ...(probe !== undefined && { readinessProbe: readProbe(probe) }),
  };
}

const templateSchema = Type.Object(replicaFields);

/** What its schema has let pass, with the defaults. */
export function readTemplate(given: Static<typeof templateSchema>): ReplicaTemplate {
  const { protocol, model, max_inflight: maxInflight, price, zone, spot, credentials } = given;
  return {
    protocol: protocol ?? 'ollama',
    ...(model !== undefined && { model }),
    maxInflight: maxInflight ?? 2,
    ...(price !== undefined && { price }),
    ...(zone !== undefined && { zone }),
    ...(spot !== undefined && { spot }),
    ...(credentials !== undefined && { credentials }),
  };
}

/** A URL is shown to whoever asks which replicas there are. */
function judgeUrl(given: unknown, path: string, problems: Problem[]): void {
  const parsed = typeof given === 'string' ? URL.parse(given) : null;
  if (parsed === null) return;
  if (/[?#\s]/.test(String(given))) {
    problems.push({
      path,
      reason: 'must have no `?`, `#` or white space: paths are put behind it',
    });
  }
  if (parsed.username === '' && parsed.password === '') return;
  const reason = 'has a user or a password in it, which is no place for them: use `credentials`';
  problems.push({ path, reason });
}
