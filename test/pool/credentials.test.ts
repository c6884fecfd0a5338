/** What replicas are shown, and how they are trusted: by the name that a call gives. */
import type { TLSSocket } from 'node:tls';
import { expect, test } from 'vitest';
import { ReplicaFailure } from '../../src/pool/index.ts';
import { certificateFor, clientWith, get, got, replica, tlsReplica } from './support.ts';

test('a bearer token and headers go with calls that name them, and with no others', async () => {
  const url = await replica(({ headers }, response) => {
    response.end(JSON.stringify([headers.authorization ?? null, headers['x-api-key'] ?? null]));
  });
  const client = clientWith({
    both: { bearer: 'token', headers: { 'x-api-key': 'k' } },
    other: { headers: { 'x-api-key': 'o' } },
  });
  expect(await got(client, url, 'both')).toBe('["Bearer token","k"]');
  expect(await got(client, url, 'other')).toBe('[null,"o"]');
  expect(await got(client, url)).toBe('[null,null]');
});

test('what the call sets itself wins over the headers of credentials', async () => {
  const url = await replica(({ headers }, response) => {
    response.end(`${headers['sluice-request-id']} ${headers['content-type']}`);
  });
  const client = clientWith({ c: { headers: { 'sluice-request-id': 'x', 'content-type': 'y' } } });
  const reply = await client.call({
    url,
    request: { method: 'POST', path: '/', body: '{}' },
    prompt: { id: 'r1', attempt: 1 },
    credentials: 'c',
    signal: new AbortController().signal,
  });
  const said = await reply.bytes[Symbol.asyncIterator]().next();
  expect(Buffer.from(said.value ?? '').toString()).toBe('r1 application/json');
});

test('a name that this process does not have sends nothing, also one that objects inherit', async () => {
  let calls = 0;
  const url = await replica((_, response) => {
    calls += 1;
    response.end();
  });
  const client = clientWith({ known: { bearer: 'hush' } });
  for (const name of ['knwon', 'constructor', '__proto__']) {
    const failure = await get(client, url, name).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(ReplicaFailure);
    const message = `this process has no credentials named ${name}`;
    expect(failure).toMatchObject({ message, isDown: true, wasSent: false });
  }
  expect(calls).toBe(0);
});

test('an https replica is trusted by its authority, under another name, or blindly', async () => {
  const own = await certificateFor('replica.example');
  const url = await tlsReplica({ cert: own.certificate, key: own.key }, (_, response) => {
    response.end('hello');
  });
  const ca = own.certificate;
  const client = clientWith({
    right: { tls: { ca, serverName: 'replica.example' } },
    noName: { tls: { ca } },
    noAuthority: { tls: { serverName: 'replica.example' } },
    noTls: { bearer: 'token' },
    blind: { tls: { insecureSkipVerify: true } },
  });
  const failed = async (name?: string) => {
    const failure = await get(client, url, name).catch((error: unknown) => error);
    expect(failure).toMatchObject({ isDown: true, wasSent: false });
    return failure instanceof ReplicaFailure ? failure.message : '';
  };
  // What the first has connected to serves none of the others.
  expect(await got(client, url, 'right')).toBe('hello');
  expect(await got(client, url, 'blind')).toBe('hello');
  expect(await failed('noName')).toBe('the replica failed: ERR_TLS_CERT_ALTNAME_INVALID');
  expect(await failed('noAuthority')).toBe('the replica failed: DEPTH_ZERO_SELF_SIGNED_CERT');
  expect(await failed('noTls')).toBe('the replica failed: DEPTH_ZERO_SELF_SIGNED_CERT');
  expect(await failed()).toBe('the replica failed: DEPTH_ZERO_SELF_SIGNED_CERT');
});

test('mutual TLS: our certificate is shown with the bearer token, and without it nothing is sent', async () => {
  const server = await certificateFor('replica.example');
  const ours = await certificateFor('sluice');
  let calls = 0;
  const url = await tlsReplica(
    { cert: server.certificate, key: server.key, ca: ours.certificate, requestCert: true },
    ({ socket, headers }, response) => {
      calls += 1;
      const { subject } = (socket as TLSSocket).getPeerCertificate();
      response.end(`${subject.CN} ${headers.authorization}`);
    },
  );
  const trust = { ca: server.certificate, serverName: 'replica.example' };
  const client = clientWith({
    ours: { bearer: 'token', tls: { ...trust, ...ours } },
    nobody: { bearer: 'token', tls: trust },
  });
  expect(await got(client, url, 'ours')).toBe('sluice Bearer token');
  const failure = await get(client, url, 'nobody').catch((error: unknown) => error);
  expect(failure).toMatchObject({
    message: 'the replica failed: ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED',
    isDown: true,
    wasSent: false,
  });
  expect(calls).toBe(1);
});

test('a stopped client makes no connection, and stops once more', async () => {
  const own = await certificateFor('replica.example');
  let calls = 0;
  const url = await tlsReplica({ cert: own.certificate, key: own.key }, (_, response) => {
    calls += 1;
    response.end('hello');
  });
  const client = clientWith({
    used: { tls: { insecureSkipVerify: true } },
    unused: { tls: { insecureSkipVerify: true } },
  });
  expect(await got(client, url, 'used')).toBe('hello');
  await client.stop();
  for (const name of ['used', 'unused']) {
    await expect(get(client, url, name)).rejects.toBeInstanceOf(ReplicaFailure);
  }
  await client.stop();
  expect(calls).toBe(1);
});
