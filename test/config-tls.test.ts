/** The certificate and key of gRPC: files of a config, or of the environment, and what is wrong with them. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { ConfigError, loadConfig } from '../src/config.ts';
import { certificate } from './aperture/support.ts';

async function load(fields: object, env: NodeJS.ProcessEnv = {}, folder?: string) {
  const at = folder ?? (await mkdtemp(join(tmpdir(), 'sluice-config-tls-')));
  if (folder === undefined) onTestFinished(() => rm(at, { recursive: true }));
  const file = join(at, 'sluice.yaml');
  await writeFile(file, JSON.stringify(fields));
  return loadConfig({ file, env });
}

async function problems(fields: object, env: NodeJS.ProcessEnv = {}) {
  const error = await load(fields, env).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ConfigError)) throw new Error('it was taken');
  return Object.fromEntries(error.problems.map(({ path, reason }) => [path, reason]));
}

test('paths go from the config file, and those of the environment, which win, from the process', async () => {
  const { ca, certFile, keyFile } = await certificate();
  const [cert, key] = [basename(certFile), basename(keyFile)];
  const fields = { grpc_tls_cert: cert, grpc_tls_key: key };
  const config = await load(fields, {}, dirname(certFile));
  expect(config.grpcTls).toEqual({ certificate: ca, key: await readFile(keyFile, 'utf8') });
  const other = await certificate();
  const env = { GRPC_TLS_CERT: other.certFile, GRPC_TLS_KEY: other.keyFile };
  expect((await load(fields, env, dirname(certFile))).grpcTls?.certificate).toBe(other.ca);
  expect((await load({})).grpcTls).toBeUndefined();
});

test('one without the other, what is not there, no PEM, and a key of another, by name and without its text', async () => {
  const { certFile, keyFile } = await certificate();
  const other = await certificate();
  expect(await problems({ grpc_tls_cert: certFile })).toEqual({
    grpc_tls_cert: 'needs grpc_tls_key beside it',
  });
  expect(await problems({}, { GRPC_TLS_KEY: keyFile })).toEqual({
    GRPC_TLS_KEY: 'needs grpc_tls_cert beside it',
  });
  const absent = await problems({ grpc_tls_cert: certFile, grpc_tls_key: 'none.pem' });
  expect(absent.grpc_tls_key).toMatch(/^cannot be read \(.*none\.pem\)$/);
  expect(await problems({ grpc_tls_cert: keyFile, grpc_tls_key: certFile })).toEqual({
    grpc_tls_cert: 'is not a certificate in PEM',
    grpc_tls_key: 'is not a private key in PEM',
  });
  expect(await problems({ grpc_tls_cert: certFile, grpc_tls_key: other.keyFile })).toEqual({
    grpc_tls_key: 'is not the key of grpc_tls_cert',
  });
});
