/** The shape of `sluice.yaml`: one schema, with a range for every field. */
import Type, { type Static } from 'typebox';
import { text } from '../document.ts';
import { credentialsSchema } from './credentials.ts';
import { judgeKeys } from './judges.ts';
import {
  named,
  nodeId,
  oneLine,
  oneLineInWords,
  pemFile,
  plainName,
  plainNameInWords,
  port,
  url,
} from './parts.ts';
import { poolsSchema } from './pools.ts';
import { limitsSchema, timeoutsSchema } from './settings.ts';

/** Worker concurrency of a pool that the file does not name. */
export const defaultConcurrency = 16;

const host = Type.String({
  pattern: '^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|[A-Za-z0-9]|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$',
  expect: 'a host name or IP address without a port, such as 127.0.0.1 or ::1',
});
const logLevel = Type.Enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']);
const redisUrl = url(['redis', 'rediss'], { secret: true });

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
  pools: Type.Optional(poolsSchema),
  credentials: Type.Optional(credentialsSchema),
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
      Type.Object(
        {
          key: Type.String({
            pattern: '^[!-~]{1,512}$',
            secret: true,
            expect: 'a key of 1 to 512 visible ASCII characters without spaces',
          }),
          labels: Type.Optional(named(oneLine, text(8192), oneLineInWords)),
          admin: Type.Optional(Type.Boolean()),
        },
        { secret: true },
      ),
      { maxItems: 10_000, secret: true, judge: judgeKeys },
    ),
  ),
  limits: Type.Optional(limitsSchema),
  timeouts: Type.Optional(timeoutsSchema),
  attempts: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
  replay_jobs: Type.Optional(Type.Boolean()),
  worker: Type.Optional(
    Type.Object({
      concurrency: Type.Optional(
        named(plainName, Type.Integer({ minimum: 1, maximum: 10_000 }), plainNameInWords),
      ),
    }),
  ),
});

/** A file that the schema has let pass. */
export type ConfigFile = Static<typeof fileSchema>;
