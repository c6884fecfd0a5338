/** The pools of the config file: their replicas, named or found in DNS, and who prefers which. */
import Type, { type Static } from 'typebox';
import {
  didYouMean,
  duration,
  isMapping,
  join,
  type Problem,
  parseDuration,
  shown,
  text,
} from '../document.ts';
import { defaultReplicaId, judgePools } from './judges.ts';
import { named, plainName, plainNameInWords } from './parts.ts';
import { probeSchema, readProbe } from './probe.ts';
import { readReplica, readTemplate, replicaFields, replicaSchema } from './replica.ts';
import type { Affinity, DnsConfig, PoolConfig } from './types.ts';

const affinity = Type.Object(
  {
    by: Type.Enum(['prefix', 'label']),
    label: Type.Optional(text(120)),
    prefix_bytes: Type.Optional(Type.Integer({ minimum: 16, maximum: 65_536 })),
    load_factor: Type.Optional(Type.Number({ minimum: 1, maximum: 10 })),
  },
  { judge: judgeAffinity },
);

/** Of SRV records too, whose first labels begin with `_`. */
const hostLabel = '[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?';

const dns = Type.Object(
  {
    name: Type.String({
      pattern: `^(?=.{1,254}$)${hostLabel}(?:\\.${hostLabel})*\\.?$`,
      expect: 'a host name, such as vllm.default.svc.cluster.local',
    }),
    kind: Type.Optional(Type.Enum(['address', 'srv'])),
    port: Type.Optional(Type.Integer({ minimum: 1, maximum: 65_535 })),
    scheme: Type.Optional(Type.Enum(['http', 'https'])),
    path: Type.Optional(
      Type.String({
        pattern: '^/(?!.*[?#])[!-~]{1,1023}$',
        expect:
          'a path of 2 to 1024 visible ASCII characters that begins with `/`, without ? and #',
      }),
    ),
    refresh: Type.Optional(duration(1000, 3_600_000)),
    ...replicaFields,
  },
  { judge: judgeDns },
);

export const poolsSchema = named(
  plainName,
  Type.Object({
    template: Type.Optional(Type.Enum(['mistral-instruct'])),
    readiness_probe: Type.Optional(probeSchema),
    affinity: Type.Optional(affinity),
    dns: Type.Optional(dns),
    replicas: Type.Optional(Type.Array(replicaSchema, { maxItems: 1000 })),
  }),
  plainNameInWords,
  { judge: judgePools },
);

type GivenPools = Static<typeof poolsSchema>;

/** What the schema has let pass. `known` are the names of credentials, where those could be read. */
export function readPools(
  given: GivenPools,
  known: readonly string[] | undefined,
  problems: Problem[],
): Record<string, PoolConfig> {
  if (known !== undefined) judgeReferences(given, known, problems);
  const entries = Object.entries(given).map(([name, pool]) => {
    const { template, readiness_probe: probe } = pool;
    const replicas = (pool.replicas ?? []).map((replica, index) =>
      readReplica(replica, replica.id ?? defaultReplicaId(name, index)),
    );
    const read: PoolConfig = {
      ...(template !== undefined && { template }),
      ...(probe !== undefined && { readinessProbe: readProbe(probe) }),
      ...(pool.affinity && { affinity: readAffinity(pool.affinity) }),
      ...(pool.dns && { dns: readDns(pool.dns) }),
      replicas,
    };
    return [name, read] as const;
  });
  return Object.fromEntries(entries);
}

function readAffinity(given: Static<typeof affinity>): Affinity {
  const { by, label, prefix_bytes: prefixBytes, load_factor: loadFactor } = given;
  return {
    by,
    ...(label !== undefined && { label }),
    prefixBytes: prefixBytes ?? 1024,
    loadFactor: loadFactor ?? 1.25,
  };
}

function readDns(given: Static<typeof dns>): DnsConfig {
  const { name, kind, port, scheme, path, refresh } = given;
  return {
    name,
    kind: kind ?? 'address',
    ...(port !== undefined && { port }),
    scheme: scheme ?? 'http',
    ...(path !== undefined && { path }),
    refreshMs: (refresh === undefined ? undefined : parseDuration(refresh)) ?? 10_000,
    ...readTemplate(given),
  };
}

/** Credentials that this file does not hold are none that this process can show. */
function judgeReferences(pools: GivenPools, known: readonly string[], problems: Problem[]): void {
  const judge = (given: { readonly credentials?: string } | undefined, path: string) => {
    const { credentials } = given ?? {};
    if (credentials === undefined || known.includes(credentials)) return;
    const hint = didYouMean(credentials, known);
    const reason = `${shown(credentials)} is not one of \`credentials\`${hint}`;
    problems.push({ path: join(path, 'credentials'), reason });
  };
  for (const [name, pool] of Object.entries(pools)) {
    const path = join('pools', name);
    judge(pool.dns, join(path, 'dns'));
    pool.replicas?.forEach((replica, index) => {
      judge(replica, join(join(path, 'replicas'), index));
    });
  }
}

/** The label is named where it is asked for, and what only the other kind reads is not given. */
function judgeAffinity(given: unknown, path: string, problems: Problem[]): void {
  if (!isMapping(given)) return;
  if (given.by === 'label' && given.label === undefined) {
    const reason = 'is missing; with `by: label` it names the label';
    problems.push({ path: join(path, 'label'), reason });
  }
  const other = given.by === 'label' ? 'prefix_bytes' : 'label';
  if (given[other] === undefined || (given.by !== 'label' && given.by !== 'prefix')) return;
  problems.push({ path: join(path, other), reason: `has no meaning with \`by: ${given.by}\`` });
}

/** Addresses have no port; SRV records have theirs. */
function judgeDns(given: unknown, path: string, problems: Problem[]): void {
  if (!isMapping(given)) return;
  const { kind = 'address', port } = given;
  const at = join(path, 'port');
  if (kind === 'srv' && port !== undefined) {
    problems.push({ path: at, reason: 'has no meaning with `kind: srv`, whose records name it' });
  }
  if (kind === 'address' && port === undefined) {
    const reason = 'is missing; it must be a whole number from 1 to 65535';
    problems.push({ path: at, reason });
  }
}
