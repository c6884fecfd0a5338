/** What pools and their replicas are configured with, as `types.ts` says of the rest. */

/** One pool. */
export interface PoolConfig {
  /**
   * How a conversation becomes one text for replicas that take only text (`ray`). Default none: then
   * they take a single message as it is.
   */
  readonly template?: 'mistral-instruct';
  /** How its replicas are probed that have no probe of their own. Default none: they are not. */
  readonly readinessProbe?: ReadinessProbe;
  /** Which prompts prefer the same replica. Default none: whichever has room. */
  readonly affinity?: Affinity;
  /** A name in DNS whose addresses are replicas too. Default none. */
  readonly dns?: DnsConfig;
  /** Those that are named in the file. Default none. */
  readonly replicas: readonly ReplicaConfig[];
}

/** What replicas have in common that are found by one name. */
export interface ReplicaTemplate {
  /** What it speaks. Default ollama. */
  readonly protocol: 'ollama' | 'openai' | 'ray';
  /** The model's name there; absent for the name that the caller used. */
  readonly model?: string;
  /** Prompts it takes at once: a count. Default 2. */
  readonly maxInflight: number;
  /** What an hour of it costs, in any unit that all replicas share. Default unknown. */
  readonly price?: number;
  /** Where it stands, as its cloud names the place. Default unknown. */
  readonly zone?: string;
  /** Its machine can be taken away at short notice. Default no. */
  readonly spot?: boolean;
  /** The name of what it is shown, one of the config's `credentials`. Default nothing. */
  readonly credentials?: string;
}

/** One inference server. */
export interface ReplicaConfig extends ReplicaTemplate {
  /** Unique among all pools. Default `<pool>-<place in the list, from 1>`. */
  readonly id: string;
  /** Base URL, http or https, without a user or password. */
  readonly url: string;
  /** How it is probed. Default the probe of its pool. */
  readonly readinessProbe?: ReadinessProbe;
}

/** How it is found out whether a replica is ready; as SkyServe has it. A path alone is enough. */
export interface ReadinessProbe {
  /** Asked with GET, and with POST where there is something to post. Begins with `/`. */
  readonly path: string;
  /** JSON text, at most 64 KiB; in the file a mapping or such a text. Default none. */
  readonly postData?: string;
  /** Failures so soon after the replica is known only mean that it starts, in ms. Default 1200 s. */
  readonly initialDelayMs: number;
  /** How long an answer may take, in ms; `timeout_seconds` or `timeout: 15s`. Default 15 s. */
  readonly timeoutMs: number;
  /** From one probe to the next, in ms. Default 10 s. */
  readonly periodMs: number;
  /** Successes in a row that make a replica ready: a count. Default 1. */
  readonly successThreshold: number;
  /** Failures in a row that make it not ready: a count. Default 1. */
  readonly failureThreshold: number;
}

/** Prompts that begin alike go to the same replica, which still has in memory what it made of that. */
export interface Affinity {
  /** What must be the same: the beginning of the prompt, or the value of a label. */
  readonly by: 'prefix' | 'label';
  /** The label's key, where it is by label. */
  readonly label?: string;
  /** How much of the beginning, in bytes of UTF-8. Default 1024. */
  readonly prefixBytes: number;
  /**
   * A replica that holds more than so many times its share is passed over: a ratio, 1 or more.
   * Default 1.25.
   */
  readonly loadFactor: number;
}

/** A name in DNS, and what the replicas found there are. */
export interface DnsConfig extends ReplicaTemplate {
  /** A host name; that of SRV records in full, as `_http._tcp.vllm.default.svc.cluster.local`. */
  readonly name: string;
  /** What is looked up: addresses (A, or AAAA where there are none), or SRV records. Default address. */
  readonly kind: 'address' | 'srv';
  /** TCP port, of addresses; SRV records have theirs. No default. */
  readonly port?: number;
  /** With https the certificate is that of an address, or of `server_name`. Default http. */
  readonly scheme: 'http' | 'https';
  /** Of the base URL, as Ray Serve's route prefix. Default none. */
  readonly path?: string;
  /** From one look-up to the next, in ms. Default 10 s. */
  readonly refreshMs: number;
}

/** What replicas are shown. Secret but for {@link ReplicaTls.serverName}: in no log, message or answer. */
export interface Credentials {
  /** Sent as `authorization: Bearer <this>`. Default none. */
  readonly bearer?: string;
  /** Sent with every call; names in lower case. Default none. */
  readonly headers?: Readonly<Record<string, string>>;
  /** For replicas with an https URL. Default what Node trusts, and no certificate of our own. */
  readonly tls?: ReplicaTls;
}

/** How an https replica is trusted, and what it is shown. PEM texts, read at the start. */
export interface ReplicaTls {
  /** Authorities that are trusted in place of Node's. From `ca_file`. Default Node's. */
  readonly ca?: string;
  /** Our certificate, with those between it and its authority. From `cert_file`. Default none. */
  readonly certificate?: string;
  /** Its private key. From `key_file`. Default none. */
  readonly key?: string;
  /** The name in the replica's certificate. Default the host of its URL. */
  readonly serverName?: string;
  /** Takes any certificate, so that anyone on the way may read and answer. For tests. Default no. */
  readonly insecureSkipVerify: boolean;
}
