/** Reads certificates and keys; every failure becomes a problem, never a throw, and shows no secret. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { Problem } from '../document.ts';
import type { Tls } from './types.ts';

/** A file as it was named: in the config file, from whose folder its path goes, or by a variable. */
export interface NamedFile {
  readonly field: string;
  readonly path: string;
  readonly folder: string;
}

type Field = 'grpc_tls_cert' | 'grpc_tls_key';

/** A file that the environment names goes from the working folder, another one from the config's. */
export function namedFile(
  field: Field,
  from: {
    readonly file: Readonly<Partial<Record<Field, string>>>;
    readonly variables: Readonly<Partial<Record<Field, string>>>;
    readonly configPath: string;
  },
): NamedFile | undefined {
  const variable = from.variables[field];
  if (variable !== undefined) return { field: field.toUpperCase(), path: variable, folder: '.' };
  const path = from.file[field];
  return path === undefined ? undefined : { field, path, folder: dirname(from.configPath) };
}

/** Both or none, and the key must be the certificate's. `names` are those of the two fields. */
export function readTls(
  certificate: NamedFile | undefined,
  key: NamedFile | undefined,
  names: { readonly certificate: string; readonly key: string },
  problems: Problem[],
): Tls | undefined {
  if (!certificate || !key) {
    const given = certificate ?? key;
    const lacks = certificate ? names.key : names.certificate;
    if (given) problems.push({ path: given.field, reason: `needs ${lacks} beside it` });
    return undefined;
  }
  const [publicPem, privatePem] = [readPem(certificate, problems), readPem(key, problems)];
  if (publicPem === undefined || privatePem === undefined) return undefined;
  const parsed = parsedBy(() => new X509Certificate(publicPem));
  if (!parsed) problems.push({ path: certificate.field, reason: 'is not a certificate in PEM' });
  const secret = parsedBy(() => createPrivateKey(privatePem));
  if (!secret) problems.push({ path: key.field, reason: 'is not a private key in PEM' });
  if (!parsed || !secret) return undefined;
  if (!parsed.checkPrivateKey(secret)) {
    problems.push({ path: key.field, reason: `is not the key of ${certificate.field}` });
  }
  return { certificate: publicPem, key: privatePem };
}

const pemCertificates = /-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----/gs;

/** Certificates of authorities, one after the other; Node would pass over those it cannot read. */
export function readAuthorities(file: NamedFile, problems: Problem[]): string | undefined {
  const pem = readPem(file, problems);
  if (pem === undefined) return undefined;
  const found = pem.match(pemCertificates) ?? [];
  if (found.length > 0 && found.every((one) => parsedBy(() => new X509Certificate(one)))) {
    return pem;
  }
  const reason = 'is not a list of certificates in PEM, or not all of them can be read';
  problems.push({ path: file.field, reason });
  return undefined;
}

function readPem({ field, path, folder }: NamedFile, problems: Problem[]): string | undefined {
  const whole = resolve(folder, path);
  const text = parsedBy(() => readFileSync(whole, 'utf8'));
  if (text === undefined) problems.push({ path: field, reason: `cannot be read (${whole})` });
  return text;
}

/** What is wrong with a key is not said: its text could be in it. */
function parsedBy<Value>(parse: () => Value): Value | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}
