import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { ConfigError, configWarnings, firstRunPolicy, loadConfig } from '../src/config.ts';
import { limitsOf, parsePolicy } from '../src/policy/index.ts';

const folder = mkdtempSync(join(tmpdir(), 'sluice-config-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Writes a file into the folder of this test file and returns its path. */
function written(name: string, text: string): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

function load(text: string, env: NodeJS.ProcessEnv = {}) {
  return loadConfig({ file: written('sluice.yaml', text), env });
}

/** The problems by path; fails when the configuration is let pass. */
function problemsIn(act: () => unknown): Record<string, string> {
  try {
    act();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return Object.fromEntries(error.problems.map(({ path, reason }) => [path, reason]));
  }
  throw new Error('the configuration was let pass');
}

test('without a file and environment everything has its default, and the first run a policy', () => {
  const { policies } = loadConfig({ env: {}, firstRun: true });
  expect(policies).toEqual([{ source: 'the first run', document: firstRunPolicy }]);
  expect(load('')).toEqual({
    host: '127.0.0.1',
    port: 8080,
    grpcPort: 8089,
    grpcTls: undefined,
    redisUrl: undefined,
    logLevel: 'info',
    otelEndpoint: undefined,
    domain: 'main',
    policies: [],
    pools: { mistral: { replicas: [] } },
    credentials: {},
    models: { mistral: { pool: 'mistral', controlPoint: 'mistral-prompt' } },
    defaultModel: 'mistral',
    apiKeys: [],
    limits: {
      bodyBytes: 1_048_576,
      queuedBytes: 268_435_456,
      answerBytes: 16_777_216,
      cacheBytes: 67_108_864,
      held: 100_000,
      labelsBytes: 16_384,
      waiting: 100_000,
      labelBytes: 1024,
      labels: 64,
      tokens: 10_000_000,
      deadLetters: 1000,
      deadLetterBytes: 67_108_864,
    },
    timeouts: {
      queueMs: 120_000,
      maxTimeoutMs: 3_600_000,
      beginMs: 5000,
      heartbeatMs: 10_000,
      memberMs: 10_000,
      sweepMs: 1000,
      keepJobMs: 3_600_000,
      keepMs: 60_000,
      abortMarginMs: 1000,
      maxInflightMs: 60_000,
      firstTokenMs: 60_000,
      streamIdleMs: 30_000,
      flushMs: 100,
      keepAliveMs: 5_000,
      slowReaderMs: 30_000,
      stopMs: 10_000,
      keepDeadMs: 604_800_000,
      replicaDownMs: 5000,
      drainMs: 30_000,
    },
    attempts: 3,
    replayJobs: true,
    worker: { concurrency: { mistral: 16 } },
  });
});

test('the policy of the first run is a valid policy with the promised limits', () => {
  const policy = parsePolicy(firstRunPolicy);
  expect(policy).toMatchObject({
    name: 'mistral',
    selectors: [{ controlPoint: 'mistral-prompt' }],
    maxInflightMs: 60_000,
    scheduler: {
      priorityLabelKey: 'priority',
      tokensLabelKey: 'tokens',
      workloadLabelKey: 'workload',
      fairnessLabelKey: 'user_id',
      default: { priority: 1, queueTimeoutMs: 120_000 },
    },
  });
  expect(limitsOf(policy)).toEqual({ mistral: 4 });
});

test('a file sets every field, durations as text or as milliseconds', () => {
  const config = load(`
host: "::1"
node_id: gateway-1
domain: team_2
pools:
  big: { replicas: [{ url: "http://10.0.0.1:8000/v1", protocol: openai, model: m, max_inflight: 8 }] }
  small: { replicas: [{ id: s, url: "https://s.example" }] }
models: { "mistral:7b": { pool: big, control_point: chat }, small: {} }
default_model: small
api_keys: [{ key: k1, labels: { user_id: u1 } }, { key: k2 }]
limits: { waiting: 5 }
timeouts: { queue: 1m30s, begin_ms: 250 }
attempts: 1
worker: { concurrency: { big: 4 } }
policies: []
`);
  expect(config).toMatchObject({
    host: '::1',
    nodeId: 'gateway-1',
    domain: 'team_2',
    pools: {
      big: {
        replicas: [
          {
            id: 'big-1',
            url: 'http://10.0.0.1:8000/v1',
            protocol: 'openai',
            model: 'm',
            maxInflight: 8,
          },
        ],
      },
      small: {
        replicas: [{ id: 's', url: 'https://s.example', protocol: 'ollama', maxInflight: 2 }],
      },
    },
    models: {
      'mistral:7b': { pool: 'big', controlPoint: 'chat' },
      small: { pool: 'small', controlPoint: 'small-prompt' },
    },
    defaultModel: 'small',
    apiKeys: [
      { key: 'k1', labels: { user_id: 'u1' } },
      { key: 'k2', labels: {} },
    ],
    limits: { waiting: 5, labels: 64 },
    timeouts: { queueMs: 90_000, beginMs: 250, sweepMs: 1000 },
    attempts: 1,
    worker: { concurrency: { big: 4, small: 16 } },
    policies: [],
  });
});

test('the environment wins over the file, an empty variable counts as unset', () => {
  const env = { PORT: '0', HOST: '', REDIS_URL: 'rediss://u:p@redis:6380/1', LOG_LEVEL: 'debug' };
  const config = load('port: 1\nhost: localhost\ngrpc_port: 2', env);
  expect(config).toMatchObject({ port: 0, host: 'localhost', grpcPort: 2, logLevel: 'debug' });
  expect(config.redisUrl).toBe('rediss://u:p@redis:6380/1');
  const endpoint = { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://collector:4318' };
  expect(load('', endpoint).otelEndpoint).toBe('http://collector:4318');
});

test('the network is listened on only when asked for, and without keys there is a warning', () => {
  expect(configWarnings(load(''))).toEqual([]);
  expect(load('', { HOST: '' }).host).toBe('127.0.0.1');
  const open = load('', { HOST: '0.0.0.0' });
  expect(open.host).toBe('0.0.0.0');
  expect(configWarnings(open)).toEqual([expect.stringContaining('without api_keys')]);
  expect(configWarnings(load('host: 0.0.0.0\napi_keys: [{ key: k }]'))).toEqual([]);
  expect(configWarnings(load('host: "::"'))).toHaveLength(1);
  expect(configWarnings(load('host: "::1"'))).toEqual([]);
});

test('all problems of the file and the environment come at once, each with its path', () => {
  const found = problemsIn(() =>
    load(
      `
prot: 3
port: 99999
pools:
  a b: {}
  m: { replicas: [{ url: "ftp://x", max_inflight: -1 }, {}, { id: m-1, url: "http://x" }] }
models: { x: { controlpoint: k } }
limits: { bodybytes: 3, waiting: .inf, labels: .nan }
timeouts: { queue: 12, sweep: 5m, keep_ms: 1000, keep: 1s }
api_keys: [{ key: "secret key", labels: { a: 5 } }, { key: k }, { key: k }]
policy_files: [absent.yaml]
attempts:
`,
      { PORT: 'abc', GRPC_PORT: '-1', HOST: 'a b', LOG_LEVEL: 'inf', REDIS_URL: 'http://u:hush@x' },
    ),
  );
  expect(Object.keys(found).sort()).toEqual(
    [
      'prot',
      'port',
      'pools["a b"]',
      'pools.m.replicas[0].url',
      'pools.m.replicas[0].max_inflight',
      'pools.m.replicas[1].url',
      'pools.m.replicas[2].id',
      'models.x.controlpoint',
      'limits.bodybytes',
      'limits.waiting',
      'limits.labels',
      'timeouts.queue',
      'timeouts.sweep',
      'timeouts.keep_ms',
      'api_keys[0].key',
      'api_keys[0].labels.a',
      'api_keys[2].key',
      'policy_files[0]',
      'attempts',
      'PORT',
      'GRPC_PORT',
      'HOST',
      'LOG_LEVEL',
      'REDIS_URL',
    ].sort(),
  );
  expect(found.prot).toBe('is not a field; did you mean `port`?');
  expect(found.PORT).toBe('must be a whole number from 0 to 65535, not "abc"');
  expect(found['timeouts.queue']).toContain('a duration from 1ms to 24h');
  const everything = JSON.stringify(found);
  expect(everything).not.toContain('hush');
  expect(everything).not.toContain('secret key');
});

test('fields that refer to each other are checked, with the name that was meant', () => {
  const found = problemsIn(() =>
    load(`
pools: { mistral: {} }
models: { mistral: { pool: mistrall }, other: {} }
default_model: mistra
worker: { concurrency: { mistal: 3 } }
timeouts: { abort_margin: 1m }
limits: { label_bytes: 16 }
api_keys: [{ key: k, labels: { user_id: ${'x'.repeat(17)} } }]
`),
  );
  expect(found).toEqual({
    'models.mistral.pool': '"mistrall" is not one of `pools`; did you mean `mistral`?',
    'models.other.pool': '"other" is not one of `pools`',
    default_model: 'is not one of `models`; did you mean `mistral`?',
    'worker.concurrency.mistal': 'is not one of `pools`; did you mean `mistral`?',
    'timeouts.abort_margin': expect.stringContaining('must be shorter than max_inflight'),
    'api_keys[0].labels.user_id': 'is longer than limits.label_bytes, 16 bytes',
  });
  expect(problemsIn(() => load('pools: {}'))).toHaveProperty(
    'pools',
    'must name at least one pool',
  );
});

test('REDIS_URL is a redis:// or rediss:// URL, and never shown', () => {
  for (const url of ['redis://localhost', 'redis://:p@h:1/2', 'rediss://h', 'redis://[::1]:6379']) {
    expect(load('', { REDIS_URL: url }).redisUrl).toBe(url);
  }
  for (const url of ['localhost:6379', 'http://h', 'redis://', 'redis:h', 'x', 'valkey://h', ' ']) {
    const reason = 'must be a URL that begins with redis:// or rediss://';
    expect(
      problemsIn(() => load('', { REDIS_URL: url })),
      url,
    ).toEqual({ REDIS_URL: reason });
  }
});

test('a named file must exist, only the default one may be absent', () => {
  const absent = join(folder, 'absent.yaml');
  expect(problemsIn(() => loadConfig({ file: absent, env: {} }))).toEqual({
    'the config file': `does not exist (${absent})`,
  });
  expect(problemsIn(() => loadConfig({ env: { SLUICE_CONFIG: absent } }))).toEqual({
    SLUICE_CONFIG: `does not exist (${absent})`,
  });
  expect(problemsIn(() => loadConfig({ env: { SLUICE_CONFIG: folder } }))).toEqual({
    SLUICE_CONFIG: `cannot be read: EISDIR (${folder})`,
  });
  const before = process.cwd();
  const empty = join(folder, 'empty');
  mkdirSync(empty);
  process.chdir(empty);
  try {
    expect(loadConfig({ env: {} })).toEqual(load(''));
    writeFileSync('sluice.yaml', 'port: 6');
    expect(loadConfig({ env: {} }).port).toBe(6);
  } finally {
    process.chdir(before);
  }
  const named = written('named.yaml', 'port: 7');
  expect(loadConfig({ env: { SLUICE_CONFIG: named } }).port).toBe(7);
});

test('policies are read from the file and from files beside it, and judged by nobody yet', () => {
  written('policies/a.yaml', 'blueprint: whatever');
  written('policies/b.json', '{"b": 1}');
  const config = load('policies: [{ a: 1 }]\npolicy_files: [policies/a.yaml, policies/b.json]');
  expect(config.policies).toEqual([
    { source: `${join(folder, 'sluice.yaml')}: policies[0]`, document: { a: 1 } },
    { source: join(folder, 'policies/a.yaml'), document: { blueprint: 'whatever' } },
    { source: join(folder, 'policies/b.json'), document: { b: 1 } },
  ]);
});

test('text that is no YAML is a problem that does not quote the file', () => {
  const bad = ['key: "hush', 'a: 1\na: 2 # hush', '- hush', 'a: !!hush x', 'a: *hush'];
  for (const text of bad) {
    const found = problemsIn(() => load(text));
    expect(Object.keys(found)).toHaveLength(1);
    if (!/[*!]/.test(text)) expect(JSON.stringify(found)).not.toContain('hush');
  }
  const bomb = Array.from(
    { length: 12 },
    (_, i) => `l${i + 1}: &l${i + 1} [*l${i}, *l${i}, *l${i}]`,
  );
  expect(problemsIn(() => load(`l0: &l0 [x]\n${bomb.join('\n')}`))).toEqual({
    'the config file': expect.stringContaining('is not valid YAML'),
  });
});

test('the configuration is frozen to its leaves', () => {
  const config = load('api_keys: [{ key: k, labels: { a: b } }]');
  const label = config.apiKeys[0]?.labels;
  expect(() => Object.assign(config, { port: 1 })).toThrow(TypeError);
  expect(() => Object.assign(label ?? {}, { a: 'c' })).toThrow(TypeError);
});
