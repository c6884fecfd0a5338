import { promises as dns } from 'node:dns';
import { codeOf } from './failure.ts';

/** A name whose addresses are replicas. */
export interface DnsName {
  readonly name: string;
  /** Addresses of the name, or SRV records, which name a host and a port each. */
  readonly kind: 'address' | 'srv';
  /** Of `address`. */
  readonly port?: number | undefined;
  readonly scheme: 'http' | 'https';
  /** Of the base URL. */
  readonly path?: string | undefined;
}

export interface FoundReplica {
  /** `<pool>-<address>-<port>`, the address with `-` for each `.` and `:`. */
  readonly id: string;
  /** Base URL, with the address for a host. */
  readonly url: string;
}

/** Both reject with Node's codes: `ENOTFOUND` and `ENODATA` say that there is none. */
export interface DnsResolver {
  lookup(name: string): Promise<readonly { readonly address: string; readonly family: number }[]>;
  resolveSrv(name: string): Promise<readonly { readonly name: string; readonly port: number }[]>;
}

/** How long a look-up may take in all, ms. */
const lookUpMs = 5_000;
/** More replicas are taken for a mistake. */
const replicasMost = 1000;

/**
 * The replicas that a name stands for now, by id; none where DNS says that there are none. `failed` is
 * for what DNS did not answer: whoever has replicas from before keeps them. Of a host with addresses of
 * both families IPv4's are taken, or each server of a cluster with both would be two replicas.
 * Priorities and weights of SRV records are not looked at: all of them are replicas. Never throws.
 */
export async function resolveReplicas(
  pool: string,
  name: DnsName,
  resolver: DnsResolver = systemResolver(),
  timeoutMs = lookUpMs,
): Promise<{ readonly replicas: readonly FoundReplica[] } | { readonly failed: string }> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<{ failed: string }>((resolve) => {
    timer = setTimeout(() => resolve({ failed: `no answer within ${timeoutMs} ms` }), timeoutMs);
  });
  try {
    return await Promise.race([found(pool, name, resolver), late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The machine's own resolver. Hosts go through `getaddrinfo`, not to a DNS server directly, because
 * only that follows resolv.conf's search domains (short names in Kubernetes) and `/etc/hosts`. It
 * cannot be ended and holds one of Node's few threads meanwhile, so whoever asks for a name that is
 * still being looked up waits for that: keep one resolver for a process. SRV records are asked of the
 * DNS servers, by their full name.
 */
export function systemResolver(): DnsResolver {
  const underWay = new Map<string, ReturnType<DnsResolver['lookup']>>();
  return {
    lookup: (name) => {
      const known = underWay.get(name);
      if (known) return known;
      const asked = dns.lookup(name, { all: true }).finally(() => underWay.delete(name));
      underWay.set(name, asked);
      return asked;
    },
    // A new one each time reads resolv.conf as it is now.
    resolveSrv: (name) => new dns.Resolver({ timeout: 2_000, tries: 2 }).resolveSrv(name),
  };
}

async function found(
  pool: string,
  name: DnsName,
  resolver: DnsResolver,
): ReturnType<typeof resolveReplicas> {
  try {
    const replicas = (await hostsOf(name, resolver)).map(({ address, port }) => ({
      id: `${pool}-${address.replace(/[.:]/g, '-')}-${port}`,
      url: urlOf(name, address, port),
    }));
    const byId = new Map(replicas.map((replica) => [replica.id, replica]));
    if (byId.size > replicasMost) return { failed: `named more than ${replicasMost} replicas` };
    return { replicas: [...byId.values()].toSorted((a, b) => (a.id < b.id ? -1 : 1)) };
  } catch (error) {
    return { failed: codeOf(error) ?? (error instanceof Error ? error.message : String(error)) };
  }
}

async function hostsOf(
  { name, kind, port = 0 }: DnsName,
  resolver: DnsResolver,
): Promise<{ address: string; port: number }[]> {
  const targets =
    kind === 'address' ? [{ name, port }] : await orNone(() => resolver.resolveSrv(name));
  const hosts = targets.map(async (target) => {
    const addresses = ofOneFamily(await orNone(() => resolver.lookup(target.name)));
    return addresses.map((address) => ({ address, port: target.port }));
  });
  return (await Promise.all(hosts)).flat();
}

/** Link-local addresses are left out: they name an interface of this machine, which no URL can. */
function ofOneFamily(
  found: readonly { readonly address: string; readonly family: number }[],
): string[] {
  const four = found.filter(({ family }) => family === 4);
  return (four.length > 0 ? four : found)
    .map(({ address }) => address)
    .filter((address) => !address.includes('%'));
}

/** That there is no such name is an answer. */
async function orNone<Item>(ask: () => Promise<readonly Item[]>): Promise<readonly Item[]> {
  try {
    return await ask();
  } catch (error) {
    if (['ENOTFOUND', 'ENODATA'].includes(codeOf(error) ?? '')) return [];
    throw error;
  }
}

function urlOf({ scheme, path = '' }: DnsName, address: string, port: number): string {
  const host = address.includes(':') ? `[${address}]` : address;
  return `${scheme}://${host}:${port}${path}`;
}
