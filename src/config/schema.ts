/** The shape of `sluice.yaml`: one schema, with a default and a range for every field. */
import Type, { type Static, type TSchema } from 'typebox';
import { duration, type Judge, text } from '../document.ts';
import { judgeKeys, judgePools, judgeTimeouts } from './judges.ts';
import type { Limits, Timeouts } from './types.ts';

/** Names of pools: they stand raw in Redis keys and BullMQ prefixes. */
const poolName = '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$';
const poolNameInWords =
  'a name of 1 to 64 letters, digits, `_` or `-` that begins with a letter or digit';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const mebibyte = 1024 * 1024;

/** A number with its default and its range, units as in the Config. */
interface Setting {
  /** Its name in the file. */
  readonly name: string;
  readonly default: number;
  readonly least: number;
  readonly most: number;
}

/** Durations; in the file `name: 60s` or `name_ms: 60000`. */
export const timeoutSettings: Readonly<Record<keyof Timeouts, Setting>> = {
  queueMs: { name: 'queue', default: 120_000, least: 1, most: day },
  maxTimeoutMs: { name: 'max_timeout', default: hour, least: 1000, most: 7 * day },
  beginMs: { name: 'begin', default: 5000, least: 100, most: hour },
  heartbeatMs: { name: 'heartbeat', default: 10_000, least: 100, most: hour },
  memberMs: { name: 'member', default: 10_000, least: 100, most: hour },
  sweepMs: { name: 'sweep', default: 1000, least: 10, most: minute },
  keepJobMs: { name: 'keep_job', default: hour, least: 1000, most: 30 * day },
  keepMs: { name: 'keep', default: minute, least: 1000, most: 30 * day },
  abortMarginMs: { name: 'abort_margin', default: 1000, least: 0, most: minute },
  maxInflightMs: { name: 'max_inflight', default: minute, least: 100, most: 7 * day },
  firstTokenMs: { name: 'first_token', default: minute, least: 10, most: day },
  streamIdleMs: { name: 'stream_idle', default: minute / 2, least: 10, most: day },
  flushMs: { name: 'flush', default: 100, least: 1, most: minute },
  keepAliveMs: { name: 'keep_alive', default: 5000, least: 10, most: hour },
  stopMs: { name: 'stop', default: 10_000, least: 0, most: hour },
  slowReaderMs: { name: 'slow_reader', default: minute / 2, least: 100, most: hour },
};

/** Sizes in bytes where the name says so, else counts. */
export const limitSettings: Readonly<Record<keyof Limits, Setting>> = {
  bodyBytes: { name: 'body_bytes', default: mebibyte, least: 1024, most: 64 * mebibyte },
  queuedBytes: {
    name: 'queued_bytes',
    default: 256 * mebibyte,
    least: mebibyte,
    most: 1024 * 1024 * mebibyte,
  },
  waiting: { name: 'waiting', default: 100_000, least: 1, most: 10_000_000 },
  held: { name: 'held', default: 100_000, least: 1, most: 10_000_000 },
  labelBytes: { name: 'label_bytes', default: 1024, least: 16, most: 8192 },
  labels: { name: 'labels', default: 64, least: 1, most: 256 },
  labelsBytes: { name: 'labels_bytes', default: 16_384, least: 64, most: 1024 * 1024 },
  answerBytes: {
    name: 'answer_bytes',
    default: 16 * mebibyte,
    least: 1024,
    most: 256 * mebibyte,
  },
  cacheBytes: {
    name: 'cache_bytes',
    default: 64 * mebibyte,
    least: 1024,
    most: 1024 * 1024 * mebibyte,
  },
  tokens: { name: 'tokens', default: 10_000_000, least: 1, most: 10_000_000 },
};

/** Worker concurrency of a pool that the file does not name. */
export const defaultConcurrency = 16;

const url = (schemes: readonly string[], secret: boolean) =>
  Type.Refine(
    Type.String({
      secret,
      expect: `a URL that begins with ${schemes.map((scheme) => `${scheme}://`).join(' or ')}`,
    }),
    (value) => {
      if (value.length > 2048 || !URL.canParse(value)) return false;
      const { protocol, hostname } = new URL(value);
      return hostname !== '' && schemes.some((scheme) => protocol === `${scheme}:`);
    },
  );

/** A path, from the folder of the config file. */
const pemFile = text(1024);

const port = Type.Integer({ minimum: 0, maximum: 65_535 });
const host = Type.String({
  pattern: '^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|[A-Za-z0-9]|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$',
  expect: 'a host name or IP address without a port, such as 127.0.0.1 or ::1',
});
const logLevel = Type.Enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']);
const redisUrl = url(['redis', 'rediss'], true);
const nodeId = Type.String({
  pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$',
  expect: 'a name of 1 to 64 letters, digits, `_`, `.` or `-` that begins with a letter or digit',
});

/** Environment variables that set a field of the file, with the schema of what they hold. */
export const environment = {
  HOST: { field: 'host', schema: host, number: false },
  PORT: { field: 'port', schema: port, number: true },
  GRPC_PORT: { field: 'grpc_port', schema: port, number: true },
  GRPC_TLS_CERT: { field: 'grpc_tls_cert', schema: pemFile, number: false },
  GRPC_TLS_KEY: { field: 'grpc_tls_key', schema: pemFile, number: false },
  REDIS_URL: { field: 'redis_url', schema: redisUrl, number: false },
  LOG_LEVEL: { field: 'log_level', schema: logLevel, number: false },
  SLUICE_NODE_ID: { field: 'node_id', schema: nodeId, number: false },
} as const;

const replica = Type.Object({
  id: Type.Optional(nodeId),
  url: url(['http', 'https'], false),
  protocol: Type.Optional(Type.Enum(['ollama', 'openai', 'ray'])),
  model: Type.Optional(text(128)),
  max_inflight: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
});

const named = <S extends TSchema>(
  pattern: string,
  inner: S,
  expectKey: string,
  more: { readonly judge?: Judge } = {},
) => Type.Record(Type.String({ pattern }), inner, { maxProperties: 1000, expectKey, ...more });

/** Names of models and labels; shorter than a control point by more than `-prompt`. */
const oneLine = '^[^\\u0000-\\u001f\\u007f-\\u009f]{1,120}$';
const oneLineInWords = 'a name of 1 to 120 characters without control characters';

/** The whole file; what a field lacks is filled in by `loadConfig`. */
export const fileSchema = Type.Object({
  host: Type.Optional(host),
  port: Type.Optional(port),
  grpc_port: Type.Optional(port),
  grpc_tls_cert: Type.Optional(pemFile),
  grpc_tls_key: Type.Optional(pemFile),
  redis_url: Type.Optional(redisUrl),
  log_level: Type.Optional(logLevel),
  domain: Type.Optional(
    Type.String({
      pattern: '^[a-z0-9_]{1,32}$',
      expect: 'a name of 1 to 32 lower-case letters, digits or `_`',
    }),
  ),
  node_id: Type.Optional(nodeId),
  policies: Type.Optional(Type.Array(Type.Unknown(), { maxItems: 1000 })),
  policy_files: Type.Optional(Type.Array(text(1024), { maxItems: 1000 })),
  pools: Type.Optional(
    named(
      poolName,
      Type.Object({
        template: Type.Optional(Type.Enum(['mistral-instruct'])),
        replicas: Type.Optional(Type.Array(replica, { maxItems: 1000 })),
      }),
      poolNameInWords,
      { judge: judgePools },
    ),
  ),
  models: Type.Optional(
    named(
      oneLine,
      Type.Object({ pool: Type.Optional(text(64)), control_point: Type.Optional(text(128)) }),
      oneLineInWords,
    ),
  ),
  default_model: Type.Optional(text(128)),
  api_keys: Type.Optional(
    Type.Array(
      Type.Object({
        key: Type.String({
          pattern: '^[!-~]{1,512}$',
          secret: true,
          expect: 'a key of 1 to 512 visible ASCII characters without spaces',
        }),
        labels: Type.Optional(named(oneLine, text(8192), oneLineInWords)),
        admin: Type.Optional(Type.Boolean()),
      }),
      { maxItems: 10_000, judge: judgeKeys },
    ),
  ),
  limits: Type.Optional(Type.Object(numbers(limitSettings))),
  timeouts: Type.Optional(
    Type.Object({ ...durations(), ...millisecondCounts() }, { judge: judgeTimeouts }),
  ),
  attempts: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
  worker: Type.Optional(
    Type.Object({
      concurrency: Type.Optional(
        named(poolName, Type.Integer({ minimum: 1, maximum: 10_000 }), poolNameInWords),
      ),
    }),
  ),
});

/** A file that the schema has let pass. */
export type ConfigFile = Static<typeof fileSchema>;

function numbers(settings: Readonly<Record<string, Setting>>) {
  const entries = Object.values(settings).map(
    ({ name, least, most }) =>
      [name, Type.Optional(Type.Integer({ minimum: least, maximum: most }))] as const,
  );
  return Object.fromEntries(entries);
}

function durations() {
  const entries = Object.values(timeoutSettings).map(
    ({ name, least, most }) => [name, Type.Optional(duration(least, most))] as const,
  );
  return Object.fromEntries(entries);
}

function millisecondCounts() {
  const entries = Object.values(timeoutSettings).map(
    ({ name, least, most }) =>
      [`${name}_ms`, Type.Optional(Type.Integer({ minimum: least, maximum: most }))] as const,
  );
  return Object.fromEntries(entries);
}
