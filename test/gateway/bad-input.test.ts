/** Whatever a client sends, it gets a clear refusal, nothing is queued, and the gateway serves on. */
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { expectRefusal, type Refusal } from './errors.ts';
import { isIdle, newWorld, type World } from './world.ts';

let world: World;
let logSeen = 0;
const stops: (() => Promise<void>)[] = [];

beforeAll(async () => {
  world = await newWorld({ config: { limits: { body_bytes: 4096, labels: 8 } } }, (stop) => {
    stops.push(stop);
  });
});
afterAll(async () => {
  for (const stop of stops.toReversed()) await stop();
});

afterEach(async () => {
  expect(isIdle(await world.view())).toBe(true);
  const { started } = world.simulator.state();
  world.simulator.reset();
  expect(started).toBe(0);
  expect((await world.get('/healthz')).status).toBe(200);
  const log = world.log();
  const logged = log.slice(logSeen);
  logSeen = log.length;
  expect(logged).not.toContain('"level":50');
});

const chat = { messages: [{ role: 'user', content: 'Why?' }] };
const generate = { prompt: 'Why?' };
const invalid = (param?: string): Refusal => ({
  status: 400,
  code: 'invalid_request',
  ...(param !== undefined && { param }),
});
const many = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, 'v']));

test('the check of each case can fail: a good prompt is seen at the replica', async () => {
  const answer = await world.post('/v1/chat/completions', chat);
  expect(answer.status).toBe(200);
  expect(world.simulator.state().started).toBe(1);
  world.simulator.reset();
});

describe('bodies', () => {
  const deep = `${'['.repeat(1500)}${']'.repeat(1500)}`;
  const bodies: Record<string, [body: unknown, openai: Refusal, path?: string]> = {
    'not JSON': ['{"prompt": "a', invalid('body')],
    empty: ['', invalid()],
    'a list': [[], invalid('body')],
    'a text': ['"prompt"', invalid('body')],
    null: ['null', invalid('body')],
    'no prompt': [{}, invalid('prompt'), '/v1/completions'],
    'no messages': [{}, invalid('messages')],
    'no input': [{}, invalid('input'), '/v1/embeddings'],
    'an empty prompt': [{ prompt: '' }, invalid('prompt'), '/v1/completions'],
    'a prompt that is a number': [{ prompt: 5 }, invalid('prompt'), '/v1/completions'],
    'messages that are a text': [{ messages: 'Why?' }, invalid('messages')],
    'a message without a role': [{ messages: ['Why?'] }, invalid('messages[0].role')],
    'a model that is a number': [{ ...chat, model: 5 }, invalid('model')],
    'a stream that is a text': [{ ...chat, stream: 'yes' }, invalid('stream')],
    'an unknown model': [
      { ...chat, model: 'gpt' },
      { status: 404, code: 'unknown_model', param: 'model' },
    ],
    'a model named like a property of objects': [
      { ...chat, model: 'constructor' },
      { status: 404, code: 'unknown_model', param: 'model' },
    ],
    'a model named __proto__': [
      { ...chat, model: '__proto__' },
      { status: 404, code: 'unknown_model', param: 'model' },
    ],
    'only __proto__': ['{"__proto__": {"messages": [{"role": "user"}]}}', invalid('messages')],
    'nested deeply': [`{"messages": [{"role": "user"}], "x": ${deep}}`, invalid('body')],
    'larger than the limit': [
      { ...chat, x: 'x'.repeat(5000) },
      { status: 413, code: 'payload_too_large' },
    ],
  };
  for (const [name, [body, refusal, path = '/v1/chat/completions']] of Object.entries(bodies)) {
    test(`${name}: refused`, async () => {
      await expectRefusal(await world.post(path, body), 'openai', refusal);
    });
  }

  test("Ollama's paths answer in Ollama's shape", async () => {
    for (const path of ['/api/generate', '/api/chat', '/api/embed']) {
      await expectRefusal(await world.post(path, 'nothing'), 'ollama', invalid());
      await expectRefusal(await world.post(path, {}), 'ollama', invalid());
      const huge = { prompt: 'x'.repeat(5000) };
      const tooLarge = { status: 413, code: 'payload_too_large' };
      await expectRefusal(await world.post(path, huge), 'ollama', tooLarge);
    }
    const unknown = { ...generate, model: 'gpt' };
    const refusal = { status: 404, code: 'unknown_model' };
    await expectRefusal(await world.post('/api/generate', unknown), 'ollama', refusal);
  });

  test('a body that is compressed is refused with the reason', async () => {
    const body = gzipSync(JSON.stringify(chat));
    const headers = { 'content-encoding': 'gzip', 'content-type': 'application/json' };
    const answer = await world.post('/v1/chat/completions', '', { body, headers });
    await expectRefusal(answer, 'openai', invalid('Content-Encoding'));
  });

  test('a body larger than the limit is refused without a Content-Length, too', async () => {
    const chunk = `1000\r\n${'x'.repeat(0x1000)}\r\n`;
    const head = 'POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n';
    expect(await world.raw(`${head}${chunk}${chunk}0\r\n\r\n`)).toMatch(/^HTTP\/1.1 413 /);
  });

  test('bytes that are not UTF-8 are refused', async () => {
    const body = Buffer.from('{"prompt": "\xff\xfe"}', 'latin1');
    await expectRefusal(await world.post('/v1/completions', '', { body }), 'openai', invalid());
  });
});

describe('headers', () => {
  const long = 'x'.repeat(10_000);
  const cases: [header: string, values: string[]][] = [
    [
      'Sluice-Priority',
      [
        'NaN',
        '-1',
        '0',
        '0.09',
        'Infinity',
        '-Infinity',
        '1e3',
        '1e308',
        '1000.1',
        '',
        '0x1',
        long,
      ],
    ],
    ['Sluice-Timeout-Ms', ['NaN', '-1', '0', '1.5', 'Infinity', '1e3', '99999999999', '', long]],
    ['Sluice-Control-Point', ['a b', 'a,b', '', '"', 'x'.repeat(129), '<script>']],
    [
      'Sluice-Labels',
      [
        'user_id',
        '=v',
        'a b=c',
        'user_id="u1"',
        'a=1,a=2',
        'a=%00',
        'a=%0d%0aX-Evil:%201',
        'a=%e2%80%a8',
        'a=%',
        'a=%ff',
        `a=${long}`,
        '__proto__=x',
        Object.entries(many(9))
          .map(([key, value]) => `${key}=${value}`)
          .join(),
      ],
    ],
  ];
  for (const [header, values] of cases) {
    test(`a bad ${header} is refused`, async () => {
      for (const value of values) {
        const init = { headers: { [header]: value } };
        const openai = await world.post('/v1/chat/completions', chat, init);
        const message = await expectRefusal(openai, 'openai', invalid());
        expect(message.length).toBeLessThan(400);
        const ollama = await world.post('/api/generate', generate, init);
        await expectRefusal(ollama, 'ollama', invalid());
        const job = { path: '/api/generate', body: generate };
        await expectRefusal(await world.post('/v1/jobs', job, init), 'openai', invalid());
      }
    });
  }

  test('labels that the policy reads as numbers are refused when they are none', async () => {
    const values = ['NaN', '-5', 'Infinity', '1e9', '99999999999999999999', '1.2.3', 'five'];
    for (const label of ['priority', 'tokens']) {
      for (const value of values) {
        const headers = { 'Sluice-Labels': `${label}=${value}` };
        const answer = await world.post('/v1/chat/completions', chat, { headers });
        await expectRefusal(answer, 'openai', invalid(`labels.${label}`));
      }
    }
  });

  test('a number that is given twice is refused, not guessed', async () => {
    const head = 'POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n';
    const twice = 'Sluice-Priority: 1\r\nSluice-Priority: 1000\r\nContent-Length: 14\r\n\r\n';
    const answer = await world.raw(`${head}${twice}{"prompt":"a"}`);
    expect(answer).toMatch(/^HTTP\/1.1 400 /);
    expect(answer).toContain('Sluice-Priority must be a number');
  });

  test('control characters and headers beyond the limit are refused before they are read', async () => {
    const head = 'GET /healthz HTTP/1.1\r\nHost: x\r\n';
    const control = await world.raw(`${head}Sluice-Labels: a=\x01b\r\n\r\n`);
    expect(control).toMatch(/^HTTP\/1.1 400 /);
    expect(control).toContain('"code":"invalid_request"');
    const overflow = await world.raw(`${head}X: ${'x'.repeat(20_000)}\r\n\r\n`);
    expect(overflow).toMatch(/^HTTP\/1.1 431 /);
    expect(overflow).toContain('Header overflow');
  });

  test('what is not HTTP is answered and closed', async () => {
    for (const bytes of ['nonsense\r\n\r\n', '\x16\x03\x01\x00\xa5', 'GET / HTTP/9.9\r\n\r\n']) {
      const answer = await world.raw(bytes);
      expect(answer).toMatch(/^HTTP\/1.1 400 /);
      expect(answer).toContain('"code":"invalid_request"');
    }
    const smuggled = 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n';
    expect(await world.raw(`POST / HTTP/1.1\r\nHost: x\r\n${smuggled}`)).toMatch(/^HTTP\/1.1 400 /);
  });
});

describe('jobs', () => {
  const job = { path: '/v1/completions', body: generate };
  const bodies: Record<string, [body: unknown, param: string | undefined]> = {
    'a list': [[], undefined],
    'no path': [{ body: generate }, 'path'],
    'an unknown path': [{ ...job, path: '/v1/models' }, 'path'],
    'a path that is a list': [{ ...job, path: ['/v1/completions'] }, 'path'],
    'a path like a property of objects': [{ ...job, path: 'constructor' }, 'path'],
    'no body': [{ path: job.path }, 'body'],
    'an unknown field': [{ ...job, prioritty: 5 }, 'prioritty'],
    'a field named __proto__': ['{"__proto__": 1}', '__proto__'],
    'labels that are a list': [{ ...job, labels: ['a'] }, 'labels'],
    'labels that are numbers': [{ ...job, labels: { tokens: 5 } }, 'labels.tokens'],
    'a long label': [{ ...job, labels: { user_id: 'x'.repeat(1025) } }, 'labels.user_id'],
    'control characters': [{ ...job, labels: { user_id: 'a\u0000b' } }, 'labels.user_id'],
    'half a surrogate pair': [{ ...job, labels: { user_id: '\ud800' } }, 'labels.user_id'],
    'too many labels': [{ ...job, labels: many(9) }, 'labels'],
    'tokens that are no number': [{ ...job, labels: { tokens: 'NaN' } }, 'labels.tokens'],
    'a bad control point': [{ ...job, control_point: 'a b' }, 'control_point'],
    'a control point that is a list': [{ ...job, control_point: ['a'] }, 'control_point'],
  };
  for (const [name, [body, param]] of Object.entries(bodies)) {
    test(`${name}: refused`, async () => {
      await expectRefusal(await world.post('/v1/jobs', body), 'openai', invalid(param));
    });
  }

  test('bad timeouts are refused', async () => {
    for (const timeout_ms of [0, -1, 1.5, 1e15, 1e300, '5s', 'NaN', null, true, [5], {}]) {
      const answer = await world.post('/v1/jobs', { ...job, timeout_ms });
      await expectRefusal(answer, 'openai', invalid('timeout_ms'));
    }
    // JSON's parser makes Infinity of it.
    const infinite = `{"path":"${job.path}","body":{"prompt":"a"},"timeout_ms":1e999}`;
    await expectRefusal(await world.post('/v1/jobs', infinite), 'openai', invalid('timeout_ms'));
  });

  test('an id that names nothing is unknown, whatever it is made of', async () => {
    const ids = [
      'nothing',
      `${world.config.domain}-mhz3k2ab-0123456789abcdef`,
      'other-mhz3k2ab-0123456789abcdef',
      '__proto__',
      'a%20b%00c%0d%0a',
      '%2e%2e%2fhealthz',
      '%f0%9f%a6%99',
      "';flushall",
      '*',
      'x'.repeat(3000),
    ];
    const unknown = { status: 404, code: 'unknown_job' };
    for (const id of ids) {
      for (const path of [`/v1/jobs/${id}`, `/v1/requests/${id}`]) {
        await expectRefusal(await world.get(path), 'openai', unknown);
      }
      const deleted = await world.get(`/v1/jobs/${id}`, { method: 'DELETE' });
      await expectRefusal(deleted, 'openai', unknown);
    }
  });
});

describe('routes', () => {
  test('a method that a path does not take is refused with those it takes', async () => {
    const cases: [method: string, path: string, allow: string[]][] = [
      ['GET', '/v1/chat/completions', ['POST']],
      ['DELETE', '/v1/jobs', ['POST']],
      ['PUT', '/v1/jobs/some-id', ['GET', 'HEAD', 'DELETE']],
      ['PATCH', `/v1/requests/${'x'.repeat(200)}`, ['GET', 'HEAD']],
      ['POST', '/v1/queues/mistral-prompt', ['GET', 'HEAD']],
      ['PROPFIND', '/v1/queues', ['GET', 'HEAD']],
      ['OPTIONS', '/v1/replicas', ['GET', 'HEAD']],
    ];
    for (const [method, path, allow] of cases) {
      const answer = await world.get(path, { method });
      expect(answer.headers.get('allow')?.split(', ').toSorted()).toEqual(allow.toSorted());
      await expectRefusal(answer, 'openai', { status: 405, code: 'method_not_allowed' });
    }
    const ollama = await world.get('/api/chat');
    expect(ollama.headers.get('allow')).toBe('POST');
    await expectRefusal(ollama, 'ollama', { status: 405, code: 'method_not_allowed' });
  });

  test('an unknown path is not found', async () => {
    const unknown = { status: 404, code: 'not_found' };
    for (const path of ['/v1/nothing', '/v2/jobs', '/v1/jobs/a/b', '/v1/queues/none', '/%00']) {
      await expectRefusal(await world.get(path), 'openai', unknown);
    }
    await expectRefusal(await world.post('/api/pull', {}), 'ollama', unknown);
  });

  test('a path that is not percent-encoded text is refused in the shape of its protocol', async () => {
    await expectRefusal(await world.get('/v1/jobs/%zz'), 'openai', invalid());
    await expectRefusal(await world.get('/api/%zz'), 'ollama', invalid());
  });
});
