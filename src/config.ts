/**
 * The configuration of a process: one schema, `sluice.yaml` and the environment, read once, into a
 * frozen {@link Config} or all its errors at once. Nothing else of Sluice reads the environment, but
 * the command line, which hands it to this.
 */
import { Check } from 'typebox/value';
import { readCredentials } from './config/credentials.ts';
import { firstRunName, firstRunPolicy } from './config/first-run.ts';
import { readPools } from './config/pools.ts';
import { readConfigFile, readPolicyFiles } from './config/read.ts';
import { type ConfigFile, defaultConcurrency, environment, fileSchema } from './config/schema.ts';
import { readLimits, readTimeouts } from './config/settings.ts';
import { namedFile, readTls } from './config/tls.ts';
import type {
  ApiKey,
  Config,
  Limits,
  ModelConfig,
  PolicySource,
  PoolConfig,
} from './config/types.ts';
import { deepFreeze, didYouMean, join, type Problem, problemsOf, shown } from './document.ts';

export { firstRunPolicy } from './config/first-run.ts';
export { type ReplicaPut, readReplicaPut } from './config/replica.ts';
export { replicaRecord } from './config/replica-record.ts';
export type * from './config/types.ts';
export { configWarnings } from './config/warnings.ts';

/** A configuration that cannot be used, with every problem; none of them shows a secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  /** `path` is a field of the file (`pools.mistral.replicas[0].url`) or an environment variable. */
  readonly problems: readonly Problem[];
  /** The policies that could be read all the same, so that their problems can be told as well. */
  readonly policies: readonly PolicySource[];

  constructor(problems: readonly Problem[], policies: readonly PolicySource[] = []) {
    const lines = problems.map(({ path, reason }) => `  ${path} ${reason}`);
    super(`the configuration is not valid:\n${lines.join('\n')}`);
    this.problems = problems;
    this.policies = policies;
  }
}

/**
 * The configuration from the file and the environment, which wins. The file is `file`, else
 * `SLUICE_CONFIG`, else `sluice.yaml`, which alone may be absent. An empty variable counts as unset.
 * Throws a {@link ConfigError} that lists all problems at once.
 */
export function loadConfig(from: {
  readonly file?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  /** Whether there is a policy where the file names none; else there is none. */
  readonly firstRun?: boolean;
}): Config {
  const problems: Problem[] = [];
  const named = nameOfFile(from.file, from.env);
  const given = readConfigFile(named, problems);
  problems.push(...problemsOf(fileSchema, given));
  const variables = readEnvironment(from.env, problems);

  // Fields with a problem are left out, so that the others can still be checked against each other.
  const sound: unknown = Object.fromEntries(
    Object.entries(given).filter(([key, value]) => {
      return problemsOf(fileSchema, { [key]: value }).length === 0;
    }),
  );
  if (!Check(fileSchema, sound)) throw new ConfigError(problems);
  const broken = (field: keyof ConfigFile) => Object.hasOwn(given, field) && !(field in sound);
  const file: ConfigFile = { ...sound, ...variables };

  const configPath = named?.path ?? 'sluice.yaml';
  const pem = (field: Parameters<typeof namedFile>[0]) =>
    namedFile(field, { file: sound, variables, configPath });
  const credentials = readCredentials(file.credentials ?? {}, configPath, problems);
  const known = broken('credentials') ? undefined : Object.keys(credentials);
  const pools = readPools(file.pools ?? { [firstRunName]: {} }, known, problems);
  const models = readModels(file, pools, broken('pools'), problems);
  const defaultModel = file.default_model ?? Object.keys(models)[0] ?? firstRunName;
  if (!broken('models') && !broken('pools') && !Object.hasOwn(models, defaultModel)) {
    const hint = didYouMean(defaultModel, Object.keys(models));
    problems.push({ path: 'default_model', reason: `is not one of \`models\`${hint}` });
  }
  const limits = readLimits(file.limits ?? {});
  const config: Config = {
    host: file.host ?? '127.0.0.1',
    port: file.port ?? 8080,
    grpcPort: file.grpc_port ?? 8089,
    grpcTls: readTls(pem('grpc_tls_cert'), pem('grpc_tls_key'), grpcTlsFields, problems),
    redisUrl: file.redis_url,
    logLevel: file.log_level ?? 'info',
    otelEndpoint: openTelemetryEndpoint(from.env),
    domain: file.domain ?? 'main',
    ...(file.node_id !== undefined && { nodeId: file.node_id }),
    policies: readPolicies(file, configPath, from.firstRun ?? false, problems),
    pools,
    credentials,
    models,
    defaultModel,
    apiKeys: readKeys(file, limits, problems),
    limits,
    timeouts: readTimeouts(file.timeouts ?? {}, problems),
    attempts: file.attempts ?? 3,
    replayJobs: file.replay_jobs ?? true,
    worker: { concurrency: readConcurrency(file, pools, broken('pools'), problems) },
  };
  if (problems.length > 0) throw new ConfigError(problems, config.policies);
  return deepFreeze(config);
}

const grpcTlsFields = { certificate: 'grpc_tls_cert', key: 'grpc_tls_key' } as const;

function nameOfFile(file: string | undefined, env: NodeJS.ProcessEnv) {
  if (file !== undefined) return { path: file, by: 'the config file' };
  const path = env.SLUICE_CONFIG;
  return path ? { path, by: 'SLUICE_CONFIG' } : undefined;
}

/** The fields that the environment sets. */
function readEnvironment(env: NodeJS.ProcessEnv, problems: Problem[]): Partial<ConfigFile> {
  const fields: Record<string, unknown> = {};
  for (const [name, { field, schema, number }] of Object.entries(environment)) {
    const text = env[name];
    if (text === undefined || text === '') continue;
    const value = number && /^\d{1,9}$/.test(text) ? Number(text) : text;
    const found = problemsOf(schema, value, name);
    problems.push(...found);
    if (found.length === 0) fields[field] = value;
  }
  return Check(fileSchema, fields) ? fields : {};
}

/** Standard variables: https://opentelemetry.io/docs/specs/otel/protocol/exporter/ */
function openTelemetryEndpoint(env: NodeJS.ProcessEnv): string | undefined {
  const signals = ['', 'TRACES_', 'METRICS_', 'LOGS_'];
  return signals.map((signal) => env[`OTEL_EXPORTER_OTLP_${signal}ENDPOINT`]).find(Boolean);
}

function readPolicies(
  file: ConfigFile,
  configPath: string,
  firstRun: boolean,
  problems: Problem[],
): PolicySource[] {
  if (firstRun && file.policies === undefined && file.policy_files === undefined) {
    return [{ source: 'the first run', document: firstRunPolicy }];
  }
  const inline = (file.policies ?? []).map((document, index) => ({
    source: `${configPath}: policies[${index}]`,
    document,
  }));
  return [...inline, ...readPolicyFiles(file.policy_files ?? [], configPath, problems)];
}

function readModels(
  file: ConfigFile,
  pools: Record<string, PoolConfig>,
  poolsBroken: boolean,
  problems: Problem[],
): Record<string, ModelConfig> {
  const given: NonNullable<ConfigFile['models']> =
    file.models ?? Object.fromEntries(Object.keys(pools).map((name) => [name, {}]));
  const models = Object.entries(given).map(([name, model]) => {
    const pool = model.pool ?? name;
    if (!poolsBroken && !Object.hasOwn(pools, pool)) {
      const reason = `${shown(pool)} is not one of \`pools\`${didYouMean(pool, Object.keys(pools))}`;
      problems.push({ path: `${join('models', name)}.pool`, reason });
    }
    return [name, { pool, controlPoint: model.control_point ?? `${name}-prompt` }] as const;
  });
  return Object.fromEntries(models);
}

function readKeys(file: ConfigFile, limits: Limits, problems: Problem[]): ApiKey[] {
  return (file.api_keys ?? []).map(({ key, labels = {}, admin = false }, index) => {
    const path = `api_keys[${index}]`;
    if (Object.keys(labels).length > limits.labels) {
      problems.push({ path: `${path}.labels`, reason: `are more than limits.labels` });
    }
    for (const [label, value] of Object.entries(labels)) {
      if (Buffer.byteLength(value) <= limits.labelBytes) continue;
      const reason = `is longer than limits.label_bytes, ${limits.labelBytes} bytes`;
      problems.push({ path: join(`${path}.labels`, label), reason });
    }
    return { key, labels, admin };
  });
}

function readConcurrency(
  file: ConfigFile,
  pools: Record<string, PoolConfig>,
  poolsBroken: boolean,
  problems: Problem[],
): Record<string, number> {
  const given = file.worker?.concurrency ?? {};
  for (const name of poolsBroken ? [] : Object.keys(given)) {
    if (Object.hasOwn(pools, name)) continue;
    const reason = `is not one of \`pools\`${didYouMean(name, Object.keys(pools))}`;
    problems.push({ path: join('worker.concurrency', name), reason });
  }
  return Object.fromEntries(
    Object.keys(pools).map((name) => [name, given[name] ?? defaultConcurrency]),
  );
}
