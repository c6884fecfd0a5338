/** What pools and replicas are configured with: probes, affinity, DNS, credentials, and over HTTP. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { ConfigError, configWarnings, loadConfig, readReplicaPut } from '../src/config.ts';
import { certificate } from './aperture/support.ts';

async function load(fields: object | string, folder?: string) {
  const at = folder ?? (await mkdtemp(join(tmpdir(), 'sluice-config-pool-')));
  if (folder === undefined) onTestFinished(() => rm(at, { recursive: true }));
  const file = join(at, 'sluice.yaml');
  await writeFile(file, typeof fields === 'string' ? fields : JSON.stringify(fields));
  return loadConfig({ file, env: {} });
}

async function problems(fields: object | string): Promise<Record<string, string>> {
  const error = await load(fields).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ConfigError)) throw new Error('it was taken', { cause: error });
  return Object.fromEntries(error.problems.map(({ path, reason }) => [path, reason]));
}

const url = 'http://10.0.0.1:8000';
const pool = (fields: object) => ({ pools: { m: fields } });

test('a pool and its replicas with all that they may have, and only that', async () => {
  const config = await load({
    ...pool({
      readiness_probe: '/health',
      affinity: { by: 'label', label: 'user_id', load_factor: 2 },
      dns: {
        ...{ name: '_http._tcp.vllm.svc', kind: 'srv', scheme: 'https', path: '/v1x' },
        ...{ refresh: '1m', protocol: 'openai', model: 'x', max_inflight: 8, price: 0.5 },
        ...{ zone: 'a', spot: true, credentials: 'c' },
      },
      replicas: [
        {
          url,
          price: 0,
          zone: 'eu',
          spot: false,
          credentials: 'c',
          readiness_probe: { path: '/' },
        },
        { url },
      ],
    }),
    credentials: { c: {} },
    timeouts: { replica_down: '10ms', drain_ms: 0, keep_dead: '720h' },
    limits: { dead_letters: 0, dead_letter_bytes: 2048 },
    replay_jobs: false,
  });
  const probe = {
    ...{ path: '/health', initialDelayMs: 1_200_000, timeoutMs: 15_000, periodMs: 10_000 },
    ...{ successThreshold: 1, failureThreshold: 1 },
  };
  expect(config.pools.m).toStrictEqual({
    readinessProbe: probe,
    affinity: { by: 'label', label: 'user_id', prefixBytes: 1024, loadFactor: 2 },
    dns: {
      ...{ name: '_http._tcp.vllm.svc', kind: 'srv', scheme: 'https', path: '/v1x' },
      ...{ refreshMs: 60_000, protocol: 'openai', model: 'x', maxInflight: 8, price: 0.5 },
      ...{ zone: 'a', spot: true, credentials: 'c' },
    },
    replicas: [
      {
        ...{ id: 'm-1', url, protocol: 'ollama', maxInflight: 2, price: 0, zone: 'eu' },
        ...{ spot: false, credentials: 'c', readinessProbe: { ...probe, path: '/' } },
      },
      { id: 'm-2', url, protocol: 'ollama', maxInflight: 2 },
    ],
  });
  expect(config.timeouts).toMatchObject({
    ...{ replicaDownMs: 10, drainMs: 0, keepDeadMs: 2_592_000_000 },
  });
  expect(config.limits).toMatchObject({ deadLetters: 0, deadLetterBytes: 2048 });
  expect(config.replayJobs).toBe(false);
});

test('what DNS and affinity leave out has its default', async () => {
  const { pools } = await load(
    pool({ dns: { name: 'vllm', port: 80 }, affinity: { by: 'prefix' } }),
  );
  expect(pools.m).toStrictEqual({
    dns: {
      ...{ name: 'vllm', kind: 'address', port: 80, scheme: 'http', refreshMs: 10_000 },
      ...{ protocol: 'ollama', maxInflight: 2 },
    },
    affinity: { by: 'prefix', prefixBytes: 1024, loadFactor: 1.25 },
    replicas: [],
  });
});

test('a probe as in a service file of SkyServe, with durations as numbers or as texts', async () => {
  const read = async (probe: object) =>
    (await load(pool({ readiness_probe: probe }))).pools.m?.readinessProbe;
  const given = { path: '/v1/chat/completions', post_data: { model: 'm', messages: [] } };
  const sky = { ...given, initial_delay_seconds: 0.5, timeout_seconds: 1.5 };
  expect(await read(sky)).toStrictEqual({
    path: '/v1/chat/completions',
    postData: '{"model":"m","messages":[]}',
    ...{ initialDelayMs: 500, timeoutMs: 1500, periodMs: 10_000 },
    ...{ successThreshold: 1, failureThreshold: 1 },
  });
  const text = { ...given, post_data: ' [1]', timeout: '2s', period: '10ms' };
  const counts = { success_threshold: 100, failure_threshold: 3, initial_delay_seconds: 86_400 };
  expect(await read({ ...text, ...counts })).toMatchObject({
    postData: ' [1]',
    ...{ timeoutMs: 2000, periodMs: 10, initialDelayMs: 86_400_000 },
    ...{ successThreshold: 100, failureThreshold: 3 },
  });
});

test('a probe has its problems field by field, of a pool and of a replica', async () => {
  const probe = {
    ...{ path: 'health', post_data: 'hush', initial_delay_seconds: -1, timeout: '5s' },
    ...{ timeout_seconds: 5, period: '2h', success_threshold: 0, failure_treshold: 1 },
  };
  const found = await problems(
    pool({ readiness_probe: probe, replicas: [{ url, readiness_probe: 'health' }] }),
  );
  const at = 'pools.m.readiness_probe';
  expect(Object.keys(found).sort()).toEqual(
    [
      `${at}.path`,
      `${at}.post_data`,
      `${at}.initial_delay_seconds`,
      `${at}.timeout_seconds`,
      `${at}.period`,
      `${at}.success_threshold`,
      `${at}.failure_treshold`,
      'pools.m.replicas[0].readiness_probe',
    ].sort(),
  );
  expect(found[`${at}.timeout_seconds`]).toContain('is given twice');
  expect(found[`${at}.failure_treshold`]).toContain('did you mean `failure_threshold`?');
  expect(JSON.stringify(found)).not.toContain('hush');
  for (const [given, path] of [
    [{}, `${at}.path`],
    [{ path: '/', post_data: 5 }, `${at}.post_data`],
    [{ path: '/', post_data: { a: 'x'.repeat(65_536) } }, `${at}.post_data`],
    [{ path: `/${'x'.repeat(1024)}` }, `${at}.path`],
    [{ path: '/a#b' }, `${at}.path`],
    [['/'], at],
    [5, at],
  ] as const) {
    expect(Object.keys(await problems(pool({ readiness_probe: given })))).toEqual([path]);
  }
});

test('affinity and DNS: what is missing, and what has no meaning beside the rest', async () => {
  const found = async (fields: object) => problems(pool(fields));
  const label = { by: 'label' };
  expect(await found({ affinity: label })).toEqual({
    'pools.m.affinity.label': 'is missing; with `by: label` it names the label',
  });
  expect(await found({ affinity: { ...label, label: 'u', prefix_bytes: 16 } })).toEqual({
    'pools.m.affinity.prefix_bytes': 'has no meaning with `by: label`',
  });
  expect(await found({ affinity: { by: 'prefix', label: 'u', load_factor: 0.5 } })).toEqual({
    'pools.m.affinity.load_factor': expect.stringContaining('a number from 1 to 10'),
    'pools.m.affinity.label': 'has no meaning with `by: prefix`',
  });
  expect(Object.keys(await found({ affinity: { prefix_bytes: 15 } }))).toEqual([
    'pools.m.affinity.prefix_bytes',
    'pools.m.affinity.by',
  ]);
  expect(await found({ dns: { name: 'a' } })).toEqual({
    'pools.m.dns.port': 'is missing; it must be a whole number from 1 to 65535',
  });
  expect(await found({ dns: { name: 'a', kind: 'srv', port: 80 } })).toEqual({
    'pools.m.dns.port': 'has no meaning with `kind: srv`, whose records name it',
  });
  const wrong = { name: 'a/b', port: 0, scheme: 'ftp', path: 'x', refresh: '10ms', url };
  expect(Object.keys(await found({ dns: wrong })).sort()).toEqual(
    ['name', 'path', 'port', 'refresh', 'scheme', 'url'].map((field) => `pools.m.dns.${field}`),
  );
  for (const name of ['', '-a', 'a..b', 'a b', `${'a'.repeat(64)}.b`, 'x.'.repeat(128), 'a:80']) {
    expect(await found({ dns: { name, port: 80 } }), name).toHaveProperty(['pools.m.dns.name']);
  }
});

test('a replica names credentials that there are, and holds none itself', async () => {
  const found = await problems({
    ...pool({
      dns: { name: 'a', port: 80, credentials: 'other' },
      replicas: [
        { url, credentials: 'vlm' },
        { url: 'http://user:hush@10.0.0.1', price: -1, zone: '', spot: 'no' },
        { url, credentials: 'a b' },
      ],
    }),
    credentials: { vllm: {} },
  });
  const at = 'pools.m.replicas[1]';
  expect(Object.keys(found).sort()).toEqual([
    `${at}.price`,
    `${at}.spot`,
    `${at}.url`,
    `${at}.zone`,
    'pools.m.replicas[2].credentials',
  ]);
  expect(found[`${at}.url`]).toContain('use `credentials`');
  expect(JSON.stringify(found)).not.toContain('hush');
  const named = { dns: { name: 'a', port: 80, credentials: 'other' } };
  expect(
    await problems({
      ...pool({ ...named, replicas: [{ url, credentials: 'vlm' }] }),
      credentials: { vllm: {} },
    }),
  ).toEqual({
    'pools.m.dns.credentials': '"other" is not one of `credentials`',
    'pools.m.replicas[0].credentials': '"vlm" is not one of `credentials`; did you mean `vllm`?',
  });
  // Which names there are is not known then.
  expect(Object.keys(await problems({ ...pool(named), credentials: { other: 5 } }))).toEqual([
    'credentials.other',
  ]);
});

test('credentials, with the files beside the config file', async () => {
  const { ca, certFile, keyFile } = await certificate();
  const [cert_file, key_file] = [basename(certFile), basename(keyFile)];
  const tls = { ca_file: cert_file, cert_file, key_file, server_name: 'vllm.example' };
  const config = await load(
    {
      credentials: {
        whole: { bearer: 'token', headers: { 'X-Api-Key': 'a b' }, tls },
        blind: { tls: { insecure_skip_verify: true } },
      },
    },
    dirname(certFile),
  );
  const key = await readFile(keyFile, 'utf8');
  const own = { ca, certificate: ca, key, serverName: 'vllm.example', insecureSkipVerify: false };
  expect(config.credentials).toStrictEqual({
    whole: { bearer: 'token', headers: { 'x-api-key': 'a b' }, tls: own },
    blind: { tls: { insecureSkipVerify: true } },
  });
  expect(Object.isFrozen(config.credentials.whole?.tls)).toBe(true);
});

test('credentials have their problems by name, all at once', async () => {
  const { certFile, keyFile } = await certificate();
  const headers = { Host: 'x', 'Content-Type': 'x', Authorization: 'x', 'a b': 'x', 'X-A': 'x' };
  expect(
    await problems({ credentials: { c: { bearer: 'b', headers: { ...headers, 'x-a': 'x' } } } }),
  ).toEqual({
    'credentials.c.headers': expect.stringContaining('use the name of an HTTP header'),
    'credentials.c.headers.Host': 'is not a header to be set here',
    'credentials.c.headers.Content-Type': 'is not a header to be set here',
    'credentials.c.headers.Authorization': expect.stringContaining('keep one'),
    'credentials.c.headers.x-a': 'is given twice; case does not matter',
  });
  const files = {
    lone: { cert_file: certFile },
    absent: { ca_file: 'none.pem', key_file: keyFile },
    swapped: { ca_file: keyFile, cert_file: keyFile, key_file: certFile },
  };
  const credentials = Object.fromEntries(Object.entries(files).map(([n, tls]) => [n, { tls }]));
  expect(await problems({ credentials })).toEqual({
    'credentials.lone.tls.cert_file': 'needs key_file beside it',
    'credentials.absent.tls.ca_file': expect.stringMatching(/^cannot be read \(.*none\.pem\)$/),
    'credentials.absent.tls.key_file': 'needs cert_file beside it',
    'credentials.swapped.tls.ca_file': expect.stringContaining('is not a list of certificates'),
    'credentials.swapped.tls.cert_file': 'is not a certificate in PEM',
    'credentials.swapped.tls.key_file': 'is not a private key in PEM',
  });
  for (const server_name of ['10.0.0.1', '::1', 'a b', '']) {
    expect(Object.keys(await problems({ credentials: { c: { tls: { server_name } } } }))).toEqual([
      'credentials.c.tls.server_name',
    ]);
  }
});

test('a certificate that cannot be read among those of ca_file is not passed over', async () => {
  const { ca, certFile } = await certificate();
  const load2 = async (text: string) => {
    await writeFile(join(dirname(certFile), 'ca.pem'), text);
    return load({ credentials: { c: { tls: { ca_file: 'ca.pem' } } } }, dirname(certFile));
  };
  expect((await load2(`# two\n${ca}\n${ca}`)).credentials.c?.tls?.ca).toContain('# two');
  const broken = ca.replace(/^M.*$/m, 'TUlT');
  await expect(load2(`${ca}\n${broken}`)).rejects.toThrow('not all of them can be read');
});

test('no message shows a secret, wherever a slip of the pen has put it', async () => {
  for (const text of [
    'credentials: hush',
    'credentials: { c: hush }',
    'credentials: { c: { bearer:hush } }',
    'credentials: { c: { bearer: "hush hush" } }',
    'credentials: { c: { bearer: [hush] } }',
    'credentials: { c: { barer: hush } }',
    'credentials: { c: { headers: hush } }',
    'credentials: { c: { headers: [hush] } }',
    'credentials: { c: { headers: { "x-key:hush": } } }',
    'credentials: { c: { headers: { x-key: "hush\\n" } } }',
    'credentials: { c: { tls: hush } }',
    'credentials: { c: { tls: { key:hush } } }',
    'api_keys: hush',
    'api_keys: [hush]',
    'api_keys: [{ key:hush }]',
  ]) {
    const found = await problems(text);
    expect(Object.keys(found).length, text).toBeGreaterThan(0);
    expect(JSON.stringify(found), text).not.toContain('hush');
  }
  expect(await problems('credentials: { c: { barer: hush } }')).toEqual({
    'credentials.c': 'holds a name that is not a field; did you mean `bearer`?',
  });
});

test('what leaves prompts or secrets unprotected is warned of', async () => {
  const config = await load({
    ...pool({
      dns: { name: 'a', port: 80, credentials: 'trusts' },
      replicas: [
        { url, credentials: 'trusts' },
        { url: 'https://10.0.0.1', credentials: 'trusts' },
        { url, credentials: 'token' },
      ],
    }),
    credentials: {
      trusts: { tls: {} },
      token: { bearer: 't' },
      blind: { tls: { insecure_skip_verify: true } },
    },
  });
  expect(configWarnings(config)).toEqual([
    expect.stringContaining('credentials.blind.tls.insecure_skip_verify: whoever answers'),
    'pools.m.replicas[0].url is http, so the tls of credentials trusts has no effect',
    'pools.m.dns.scheme is http, so the tls of credentials trusts has no effect',
  ]);
});

test('a replica is put with the fields of the file, a pool, a state and a time to live', () => {
  expect(readReplicaPut({ pool: 'm', url }, 'r.1')).toStrictEqual({
    put: { pool: 'm', replica: { id: 'r.1', url, protocol: 'ollama', maxInflight: 2 } },
  });
  const given = {
    ...{ pool: 'm', url, protocol: 'openai', model: 'x', max_inflight: 3, price: 1.5, zone: 'a' },
    ...{ spot: true, credentials: 'c', readiness_probe: '/', state: 'draining', ttl_ms: 1000 },
  };
  expect(readReplicaPut(given, 'r')).toMatchObject({
    put: {
      replica: {
        ...{ id: 'r', protocol: 'openai', model: 'x', maxInflight: 3, price: 1.5, zone: 'a' },
        ...{ spot: true, credentials: 'c', readinessProbe: { path: '/', timeoutMs: 15_000 } },
      },
      ...{ pool: 'm', state: 'draining', ttlMs: 1000 },
    },
  });
});

test('what is put is judged as the file is: everything at once, by field', () => {
  const paths = (given: unknown, id = 'r') => {
    const read = readReplicaPut(given, id);
    return 'problems' in read ? read.problems.map(({ path }) => path) : read.put;
  };
  expect(paths({})).toEqual(['pool', 'url']);
  for (const body of [undefined, null, 'x', []]) expect(paths(body)).toEqual(['']);
  expect(paths({ pool: 'm', url }, 'a/b')).toEqual(['id']);
  expect(paths({ pool: 'm', url }, 'x'.repeat(129))).toEqual(['id']);
  const wrong = {
    ...{ pool: 'a b', url: 'x', id: 'r', price: -1, state: 'gone', ttl_ms: 999 },
    ...{ readiness_probe: { timeout: '5s', timeout_seconds: 1 }, protocol: 'x' },
  };
  expect([...[paths(wrong)].flat()].sort()).toEqual(
    [
      ...['id', 'pool', 'price', 'protocol', 'state', 'ttl_ms', 'url'],
      ...['readiness_probe.path', 'readiness_probe.timeout_seconds'],
    ].sort(),
  );
});
