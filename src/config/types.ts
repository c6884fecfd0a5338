/**
 * What a process of Sluice is configured with: every field with its unit and its default. Written in
 * `sluice.yaml` in snake case (`grpc_port`), with durations as texts (`queue: 120s`) or as whole
 * milliseconds (`queue_ms: 120000`); the environment variable that a field names wins over the file.
 */

import type { Credentials, PoolConfig } from './pool-types.ts';

export type * from './pool-types.ts';

/** The whole configuration, frozen. */
export interface Config {
  /** Address the gateway listens on. `HOST`. Default 127.0.0.1; 0.0.0.0 only when asked for. */
  readonly host: string;
  /** TCP port for HTTP; 0 takes a free one. `PORT`. Default 8080. */
  readonly port: number;
  /** TCP port for gRPC; 0 takes a free one. `GRPC_PORT`. Default 8089. */
  readonly grpcPort: number;
  /**
   * With which gRPC is served over TLS; without it in plaintext. From the files of `grpc_tls_cert`
   * (`GRPC_TLS_CERT`) and `grpc_tls_key` (`GRPC_TLS_KEY`), read at the start. Default none.
   */
  readonly grpcTls: Tls | undefined;
  /** `redis://` or `rediss://` URL. `REDIS_URL`. Default none: a server is started. May hold a password. */
  readonly redisUrl: string | undefined;
  /** Least level that is logged, in pino's words. `LOG_LEVEL`. Default info. */
  readonly logLevel: string;
  /** Where OpenTelemetry's own variables send to; only that it is set matters here. Default none. */
  readonly otelEndpoint: string | undefined;
  /** The unit of atomicity, one Redis hash tag. Default main. */
  readonly domain: string;
  /** Name of this process among the others; a random one is made when absent. `SLUICE_NODE_ID`. */
  readonly nodeId?: string;
  /** Policies to begin with: values files, read but not judged. Default none; of `sluice dev` one. */
  readonly policies: readonly PolicySource[];
  /** Replicas that serve the same model, by pool. Default `mistral` with none; they may register later. */
  readonly pools: Readonly<Record<string, PoolConfig>>;
  /**
   * What this process shows to replicas, by the name that a replica's `credentials` gives. Every worker
   * needs them, and every gateway that asks replicas for their models. Default none.
   */
  readonly credentials: Readonly<Record<string, Credentials>>;
  /** Models that callers may name. Default one for each pool, of the same name. */
  readonly models: Readonly<Record<string, ModelConfig>>;
  /** The model of a request that names none. Default the first of `models`. */
  readonly defaultModel: string;
  /** Who may call. Default nobody in particular: without keys everyone who reaches the port may. */
  readonly apiKeys: readonly ApiKey[];
  /** What is refused as too much. */
  readonly limits: Limits;
  /** How long things may take. */
  readonly timeouts: Timeouts;
  /** Heartbeat lapses or replica failures before a prompt is failed: a count. Default 3. */
  readonly attempts: number;
  /**
   * A job whose replica fails in the middle of its answer begins anew; a job may say otherwise. Default
   * true.
   */
  readonly replayJobs: boolean;
  /** The worker process. */
  readonly worker: {
    /** Prompts that one worker process carries at a time, by pool: a count. Default 16 for each pool. */
    readonly concurrency: Readonly<Record<string, number>>;
  };
}

/** A certificate, with those between it and its authority, and its private key, as PEM. */
export interface Tls {
  readonly certificate: string;
  /** Secret: in no log, message or answer. */
  readonly key: string;
}

/** A values file and where it came from. */
export interface PolicySource {
  /** For messages: a path, or a place in the config file. */
  readonly source: string;
  /** The parsed YAML or JSON. */
  readonly document: unknown;
}

/** One model. */
export interface ModelConfig {
  /** The pool that serves it. Default the one of the same name. */
  readonly pool: string;
  /** Where its requests are scheduled. Default `<model>-prompt`. */
  readonly controlPoint: string;
}

/** A key and what it stands for. */
export interface ApiKey {
  /** Secret: in no log, message or answer. */
  readonly key: string;
  /** Labels of every request with this key; they win over what the caller sends. Default none. */
  readonly labels: Readonly<Record<string, string>>;
  /** May change policies and replicas, pause, and read dead letters. Default no. */
  readonly admin: boolean;
}

/** What is refused as too much. */
export interface Limits {
  /** A request body, in bytes. Default 1 MiB. */
  readonly bodyBytes: number;
  /** Bodies of all waiting requests of the domain, in bytes. Default 256 MiB. */
  readonly queuedBytes: number;
  /** Waiting requests of the domain: a count. Default 100,000. */
  readonly waiting: number;
  /** Requests of the domain that hold slots, or run where no limit holds: a count. Default 100,000. */
  readonly held: number;
  /** A label's value, in bytes of UTF-8. Default 1024. */
  readonly labelBytes: number;
  /** Labels of a request: a count. Default 64. */
  readonly labels: number;
  /** Labels of a request together, keys and values, in bytes of UTF-8. Default 16 KiB. */
  readonly labelsBytes: number;
  /** A replica's answer, in bytes. Default 16 MiB. */
  readonly answerBytes: number;
  /** What clients keep in the cache of their flows, in bytes. Default 64 MiB. */
  readonly cacheBytes: number;
  /** Cost of a request, in tokens. Default 10,000,000, the most that the order can carry. */
  readonly tokens: number;
  /** Dead letters that the domain keeps: a count. With 0 none is kept. Default 1000. */
  readonly deadLetters: number;
  /** Dead letters of the domain together, in bytes. Default 64 MiB. */
  readonly deadLetterBytes: number;
}

/** How long things may take, in milliseconds. */
export interface Timeouts {
  /** Waiting, when the policy says nothing. Default 120 s. */
  readonly queueMs: number;
  /** The longest timeout that a caller may ask for. Default 1 h. */
  readonly maxTimeoutMs: number;
  /** From admission until a worker begins; then back to waiting, same place. Default 5 s. */
  readonly beginMs: number;
  /** A lease without a heartbeat. Default 10 s. */
  readonly heartbeatMs: number;
  /** A worker or gateway without a sign of life. Default 10 s. */
  readonly memberMs: number;
  /** The most between two sweeps of a gateway. Default 1 s. */
  readonly sweepMs: number;
  /** How long a job's answer is kept after its end. Default 1 h. */
  readonly keepJobMs: number;
  /** How long the record of any other request is kept after its end. Default 60 s. */
  readonly keepMs: number;
  /** How long a dead letter is kept. Default 7 days, written `168h`. */
  readonly keepDeadMs: number;
  /** How long before its lease ends a worker aborts a prompt. Default 1 s. */
  readonly abortMarginMs: number;
  /** Holding slots, where no policy says how long. Default 60 s. */
  readonly maxInflightMs: number;
  /**
   * Until the first token of a stream, at most half of what is left of its lease; then the prompt goes to
   * another replica. Default 60 s.
   */
  readonly firstTokenMs: number;
  /** Between two tokens of a stream; then it has failed. Default 30 s. */
  readonly streamIdleMs: number;
  /** How long tokens are collected before they are written to Redis together. Default 100 ms. */
  readonly flushMs: number;
  /** How often a client hears something while it waits for a token. Default 5 s. */
  readonly keepAliveMs: number;
  /** A client that takes nothing of its stream for so long is gone. Default 30 s. */
  readonly slowReaderMs: number;
  /** How long a gateway that is told to stop waits for clients that wait. Default 10 s. */
  readonly stopMs: number;
  /**
   * How long a replica that failed is left alone at first; twice as long each time it fails again, up to
   * a minute. Default 5 s.
   */
  readonly replicaDownMs: number;
  /** How long what runs at a replica has when a spot notice names no deadline. Default 30 s. */
  readonly drainMs: number;
}
