/** What is allowed but probably not meant. */
import { join } from '../document.ts';
import type { Config } from './types.ts';

/** For a person to read at the start. */
export function configWarnings(config: Config): string[] {
  return [...openToAll(config), ...unverified(config), ...plaintext(config)];
}

function openToAll({ host, apiKeys }: Config): string[] {
  const loopback = /^(?:localhost|127\.[\d.]+|::1)$/i.test(host);
  if (loopback || apiKeys.length > 0) return [];
  return [
    `listening on ${host} without api_keys: everyone who reaches the port may send prompts ` +
      'and change policies and replicas; set api_keys, or listen on 127.0.0.1',
  ];
}

function unverified({ credentials }: Config): string[] {
  return Object.entries(credentials)
    .filter(([, { tls }]) => tls?.insecureSkipVerify)
    .map(
      ([name]) =>
        `${join('credentials', name)}.tls.insecure_skip_verify: whoever answers at the address of a ` +
        'replica is taken for it, and gets its prompts and secrets; set ca_file in its place',
    );
}

/** TLS that is set up and does not happen. */
function plaintext({ pools, credentials }: Config): string[] {
  return Object.entries(pools).flatMap(([name, { replicas, dns }]) => {
    const path = join('pools', name);
    const places = replicas.map((replica, index) => ({
      field: `${join(join(path, 'replicas'), index)}.url`,
      isPlain: replica.url.toLowerCase().startsWith('http:'),
      shows: replica.credentials,
    }));
    if (dns) {
      const isPlain = dns.scheme === 'http';
      places.push({ field: `${path}.dns.scheme`, isPlain, shows: dns.credentials });
    }
    return places.flatMap(({ field, isPlain, shows }) => {
      if (!isPlain || shows === undefined || !credentials[shows]?.tls) return [];
      return [`${field} is http, so the tls of credentials ${shows} has no effect`];
    });
  });
}
