/**
 * What a process shows to replicas, by name. The record of a replica in Redis holds only the name;
 * the secrets stay in the config of each process, and out of every message.
 */
import { isIP } from 'node:net';
import { dirname } from 'node:path';
import Type, { type Static } from 'typebox';
import { isMapping, join, type Problem } from '../document.ts';
import { named, pemFile, plainName, plainNameInWords } from './parts.ts';
import { readAuthorities, readTls } from './tls.ts';
import type { Credentials, ReplicaTls } from './types.ts';

/** RFC 9110, 5.6.2. */
const token = "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$";

/** What the call itself sets, and what HTTP keeps for the connection; undici refuses those. */
const reserved: ReadonlySet<string> = new Set([
  ...['content-length', 'content-type', 'host', 'transfer-encoding', 'connection'],
  ...['expect', 'keep-alive', 'upgrade'],
]);

const headerValue = Type.String({
  pattern: '^[!-~](?:[\\t -~]{0,8190}[!-~])?$',
  secret: true,
  expect: 'a text of 1 to 8192 visible ASCII characters, with spaces only between them',
});

const serverName = Type.Refine(
  Type.String({ expect: 'the host name in the certificate, such as replica.example' }),
  (value) => /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})$/.test(value) && isIP(value) === 0,
);

const tlsFields = Type.Object(
  {
    ca_file: Type.Optional(pemFile),
    cert_file: Type.Optional(pemFile),
    key_file: Type.Optional(pemFile),
    server_name: Type.Optional(serverName),
    insecure_skip_verify: Type.Optional(Type.Boolean()),
  },
  { secret: true },
);

/** `secret` on a mapping too: who forgets a colon or a space writes the secret in its place. */
export const credentialsSchema = named(
  plainName,
  Type.Object(
    {
      bearer: Type.Optional(
        Type.String({
          pattern: '^[!-~]{1,8192}$',
          secret: true,
          expect:
            'a token of 1 to 8192 visible ASCII characters, without the word Bearer before it',
        }),
      ),
      headers: Type.Optional(
        Type.Record(Type.String({ pattern: token }), headerValue, {
          maxProperties: 64,
          secret: true,
          expectKey: 'the name of an HTTP header',
        }),
      ),
      tls: Type.Optional(tlsFields),
    },
    { secret: true, judge: judgeCredentials },
  ),
  plainNameInWords,
  { secret: true },
);

/** With the files that they name, whose paths go from the folder of the config file. */
export function readCredentials(
  given: Static<typeof credentialsSchema>,
  configPath: string,
  problems: Problem[],
): Record<string, Credentials> {
  const entries = Object.entries(given).map(([name, { bearer, headers, tls }]) => {
    const path = `${join('credentials', name)}.tls`;
    const credentials: Credentials = {
      ...(bearer !== undefined && { bearer }),
      ...(headers !== undefined && { headers: lowerCased(headers) }),
      ...(tls !== undefined && { tls: readReplicaTls(tls, { path, configPath }, problems) }),
    };
    return [name, credentials] as const;
  });
  return Object.fromEntries(entries);
}

function readReplicaTls(
  given: Static<typeof tlsFields>,
  place: { readonly path: string; readonly configPath: string },
  problems: Problem[],
): ReplicaTls {
  const folder = dirname(place.configPath);
  const file = (field: 'ca_file' | 'cert_file' | 'key_file') => {
    const path = given[field];
    return path === undefined ? undefined : { field: join(place.path, field), path, folder };
  };
  const authorities = file('ca_file');
  const ca = authorities && readAuthorities(authorities, problems);
  const names = { certificate: 'cert_file', key: 'key_file' };
  const own = readTls(file('cert_file'), file('key_file'), names, problems);
  return {
    ...(ca !== undefined && { ca }),
    ...own,
    ...(given.server_name !== undefined && { serverName: given.server_name }),
    insecureSkipVerify: given.insecure_skip_verify ?? false,
  };
}

function lowerCased(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
  );
}

/** Each header once, whatever its case, and none that the call sets itself. */
function judgeCredentials(given: unknown, path: string, problems: Problem[]): void {
  if (!isMapping(given) || !isMapping(given.headers)) return;
  const seen = new Set<string>();
  for (const name of Object.keys(given.headers)) {
    const at = join(join(path, 'headers'), name);
    const folded = name.toLowerCase();
    if (reserved.has(folded)) problems.push({ path: at, reason: 'is not a header to be set here' });
    if (seen.has(folded))
      problems.push({ path: at, reason: 'is given twice; case does not matter' });
    if (folded === 'authorization' && given.bearer !== undefined) {
      problems.push({ path: at, reason: 'is what `bearer` sets, which is given too; keep one' });
    }
    seen.add(folded);
  }
}
