import { Agent, buildConnector } from 'undici';
import { codeOf } from './failure.ts';

/** What a replica is shown; how it is trusted. Secret but for the name. */
export interface ReplicaCredentials {
  readonly bearer?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly tls?: {
    /** Authorities in place of Node's, as PEM. */
    readonly ca?: string;
    readonly certificate?: string;
    readonly key?: string;
    /** The name in the replica's certificate, where it is not the host of its URL. */
    readonly serverName?: string;
    readonly insecureSkipVerify?: boolean;
  };
}

/** How long a connection may take to be made, TLS with it, ms. */
const connectMs = 2_000;

/**
 * Connections to replicas: those of credentials with TLS of their own are kept apart from all others.
 * The lease bounds a call, so the agents' own timeouts are off.
 */
export class Agents {
  /** What connecting failed with: of none of it was anything sent. */
  readonly #ofConnecting = new WeakSet<Error>();
  readonly #plain = this.#agent();
  readonly #ofNames = new Map<string, Agent>();
  #isStopped = false;

  /** The agent for these credentials, which the first call that shows them makes. */
  for(name: string | undefined, credentials: ReplicaCredentials | undefined): Agent {
    if (name === undefined || !credentials?.tls || this.#isStopped) return this.#plain;
    const known = this.#ofNames.get(name);
    if (known) return known;
    const { ca, certificate, key, serverName, insecureSkipVerify } = credentials.tls;
    const agent = this.#agent({
      ...(ca !== undefined && { ca }),
      ...(certificate !== undefined && { cert: certificate }),
      ...(key !== undefined && { key }),
      ...(serverName !== undefined && { servername: serverName }),
      rejectUnauthorized: !(insecureSkipVerify ?? false),
    });
    this.#ofNames.set(name, agent);
    return agent;
  }

  /** False where no byte of the request can have arrived. */
  wasSent(error: unknown): boolean {
    if (error instanceof Error && this.#ofConnecting.has(error)) return false;
    return !isAboutOurCertificate(error);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all([this.#plain, ...this.#ofNames.values()].map((agent) => agent.destroy()));
  }

  #agent(tls: buildConnector.BuildOptions = {}): Agent {
    const connect = buildConnector({ ...tls, timeout: connectMs });
    return new Agent({
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: (options, callback) => {
        connect(options, (...result) => {
          const [error, socket] = result;
          if (error) this.#ofConnecting.add(error);
          // Else the end that follows would be all that undici says.
          socket?.on('error', (said) => {
            if (isAboutOurCertificate(said)) socket.destroy(said);
          });
          callback(...result);
        });
      },
    });
  }
}

/**
 * In TLS 1.3 a server judges our certificate when the handshake is over for us. It alerts us then, and
 * has read nothing of the request (RFC 8446, 4.4.2.4).
 */
function isAboutOurCertificate(error: unknown): boolean {
  return /^ERR_SSL_\w+_ALERT_(?:\w*CERTIFICATE\w*|UNKNOWN_CA)$/.test(codeOf(error) ?? '');
}
