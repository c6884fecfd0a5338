/** HTTP that no client library sends: pipelines, half-closed and idle connections, odd heads and bodies. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { eventually } from '../gateway/world.ts';
import { arrived, sharedWorld, worldOf } from './world.ts';

const shared = sharedWorld({ protocol: 'ollama' });
const sockets = new Set<Socket>();

afterEach(() => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
});

/** A connection, and what has come on it. */
async function open(world = shared.world): Promise<{ socket: Socket; text: () => string }> {
  const { hostname, port } = new URL(world.url);
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
  sockets.add(socket);
  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (more) => {
    text += more;
  });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return { socket, text: () => text };
}

function statuses(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status));
}

const host = 'Host: x\r\n';
const close = 'Connection: close\r\n';

function post(path: string, body: string | object, headers = ''): string {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const head = `POST ${path} HTTP/1.1\r\n${host}${headers}`;
  return `${head}Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
}

const generate = { model: 'mistral', prompt: 'Why?', options: { num_predict: 8 } };
const whole = { ...generate, stream: false };

test('requests of one connection that were sent at once are answered in their order', async () => {
  const { world } = shared;
  const text = await world.raw(
    [
      post('/api/generate', generate),
      `GET /v1/models HTTP/1.1\r\n${host}\r\n`,
      post('/api/generate', whole),
      `GET /infer?text=Why HTTP/1.1\r\n${host}\r\n`,
      post('/v1/completions', { prompt: 'Why?', stream: true }),
      `GET /nowhere HTTP/1.1\r\n${host}${close}\r\n`,
    ].join(''),
  );
  expect(statuses(text)).toEqual([200, 200, 200, 200, 200, 404]);
  const types = [...text.matchAll(/^content-type: ([\w/-]+)/gim)].map(([, type]) => type);
  expect(types).toEqual([
    'application/x-ndjson',
    'application/json',
    'application/json',
    'text/plain',
    'text/event-stream',
    'application/json',
  ]);
});

test('when their connection is gone, all of them end at the replica', async () => {
  const { world } = shared;
  await world.simulator.setFault({ mode: 'hang', count: 3 });
  const { started, aborted } = world.simulator.state();
  const { socket } = await open();
  socket.write(post('/api/generate', whole).repeat(2) + post('/api/generate', generate));
  await world.simulator.until((counts) => counts.started === started + 3);
  socket.destroy();
  await world.simulator.until((counts) => counts.aborted === aborted + 3);
});

test.each([
  ['a list', `GET /v1/models HTTP/1.1\r\n${host}\r\n`, 200],
  ['an error', `GET /v1/models/unknown HTTP/1.1\r\n${host}\r\n`, 404],
  ['the news that nobody waits for it', post('/api/generate', whole), 499],
  ['the same of a stream', post('/api/generate', generate), 499],
])('a client that sends its FIN behind its request gets %s', async (_, request, status) => {
  const { socket, text } = await open();
  socket.end(request);
  await once(socket, 'close');
  expect(statuses(text())).toEqual([status]);
  await shared.world.idle();
});

test('a connection can be used again after each kind of answer', async () => {
  const { socket, text } = await open();
  const requests: [request: string, end: string][] = [
    [post('/api/generate', generate), '\r\n0\r\n\r\n'],
    [post('/api/generate', whole), '"done":true'],
    [post('/api/generate', '{"prompt": 5}'), '"code":"invalid_request"'],
    [post('/v1/chat/completions', { messages: [] }), '"param":"messages"'],
    [`GET /healthz HTTP/1.1\r\n${host}\r\n`, '"up"'],
  ];
  for (const [index, [request, end]] of requests.entries()) {
    const from = text().length;
    socket.write(request);
    await eventually(async () => text().slice(from).includes(end));
    expect(statuses(text())).toHaveLength(index + 1);
  }
  expect(statuses(text())).toEqual([200, 200, 400, 400, 200]);
});

test('HTTP/1.0: without a host, kept open when asked to be, never in chunks', async () => {
  const { world } = shared;
  expect(await world.raw('GET /healthz HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1.1 200 .*"up"/s);
  const old = (body: object, headers = '') =>
    post('/api/generate', body, headers).replace('HTTP/1.1', 'HTTP/1.0');
  const both = await world.raw(old(whole, 'Connection: keep-alive\r\n') + old(generate));
  expect(statuses(both)).toEqual([200, 200]);
  expect(both).not.toMatch(/transfer-encoding/i);
  expect(both.trimEnd().split('\n').at(-1)).toContain('"done":true');
});

test('a body in chunks arrives as it was, wherever it was cut', async () => {
  const { world } = shared;
  const body = Buffer.from(JSON.stringify({ ...whole, prompt: 'Größe 😀 '.repeat(20) }));
  const { socket, text } = await open();
  const chunked = 'Transfer-Encoding: chunked\r\nTrailer: X-Odd\r\n';
  socket.write(`POST /api/generate HTTP/1.1\r\n${host}${close}${chunked}\r\n`);
  // One byte a chunk: within characters, with an extension, and a trailer at the end.
  for (const byte of body)
    socket.write(Buffer.concat([Buffer.from('1;odd="a"\r\n'), Buffer.from([byte, 13, 10])]));
  socket.write('0\r\nX-Odd: b\r\n\r\n');
  await once(socket, 'end');
  expect(statuses(text())).toEqual([200]);
  expect(arrived(world)).toBe(body.toString());
});

test('a body that its client announces is waited for, and one that is too large refused', async () => {
  const { world } = shared;
  const body = JSON.stringify({ ...whole, prompt: 'a'.repeat(600_000) });
  const { socket, text } = await open();
  const length = (bytes: number) => `Content-Length: ${bytes}\r\nExpect: 100-continue\r\n\r\n`;
  socket.write(`POST /api/generate HTTP/1.1\r\n${host}${close}${length(body.length)}`);
  await eventually(async () => text() === 'HTTP/1.1 100 Continue\r\n\r\n');
  socket.write(body);
  await once(socket, 'end');
  expect(statuses(text())).toEqual([100, 200]);
  expect(arrived(world)).toBe(body.slice(0, 65_536));

  const large = await open();
  large.socket.write(`POST /api/generate HTTP/1.1\r\n${host}${close}${length(10_000_000)}`);
  await eventually(async () => large.text().includes('payload_too_large'));
  expect(statuses(large.text()).at(-1)).toBe(413);
});

test('names of headers are read in any case, and those that come twice count both', async () => {
  const { world } = shared;
  await world.simulator.setFault({ mode: 'hang', count: 1 });
  const { started } = world.simulator.state();
  const { socket } = await open();
  const labels = 'sLUICE-lABELS: user_id=u1\r\nSLUICE-LABELS: team=red,workload=paid\r\n';
  const body = JSON.stringify(whole);
  socket.write(
    `POST /api/generate HTTP/1.1\r\nhOST: x\r\n${labels}sluice-PRIORITY: 7\r\n` +
      `cONTENT-lENGTH: ${body.length}\r\ncontent-TYPE: text/plain\r\n\r\n${body}`,
  );
  await world.simulator.until((counts) => counts.started > started);
  const { request } = await world.admission.inspectRequest(
    world.simulator.state().log.at(-1)?.request_id ?? '',
  );
  expect(request?.labels).toMatchObject({ user_id: 'u1', team: 'red', workload: 'paid' });
  expect(request?.queue).toMatch(/^mistral\/paid@7\/u1\//);
});

test('headers that contradict each other are refused, and nothing runs', async () => {
  const { world } = shared;
  const { started } = world.simulator.state();
  const twice = await world.raw(
    post('/api/generate', whole, `${close}Sluice-Timeout-Ms: 5000\r\nSluice-Timeout-Ms: 6000\r\n`),
  );
  expect(statuses(twice)).toEqual([400]);
  expect(twice).toContain('Sluice-Timeout-Ms must be');
  for (const other of ['Content-Length: 5\r\n', 'Transfer-Encoding: chunked\r\n']) {
    const text = await world.raw(post('/api/generate', whole, other));
    expect(statuses(text)).toEqual([400]);
    expect(text).toContain('"code":"invalid_request"');
  }
  expect(world.simulator.state().started).toBe(started);
});

test('very many headers are read to the last, and more than 16 KiB refused', async () => {
  const { world } = shared;
  const many = Array.from({ length: 800 }, (_, index) => `x-${index}: a\r\n`).join('');
  const read = await world.raw(post('/api/generate', whole, `${many}${close}`));
  expect(statuses(read)).toEqual([200]);
  const last = `${many}${close}Sluice-Priority: none\r\n`;
  expect(await world.raw(post('/api/generate', whole, last))).toContain('Sluice-Priority');
  const tooMany = await world.raw(post('/api/generate', whole, many.repeat(3)));
  expect(statuses(tooMany)).toEqual([431]);
  expect(tooMany).toContain('"code":"invalid_request"');
});

test('1,000 connections that say nothing do not hold up a prompt, and stay usable', async () => {
  const { world } = shared;
  const idle: Awaited<ReturnType<typeof open>>[] = [];
  while (idle.length < 1_000) {
    idle.push(...(await Promise.all(Array.from({ length: 100 }, () => open()))));
  }
  // Half of them have begun to say something.
  for (const { socket } of idle.slice(500)) socket.write('GET /healthz HTTP/1.1\r\nHost');
  const text = await world.raw(post('/api/generate', generate, close));
  expect(statuses(text)).toEqual([200]);
  expect(text).toContain('"done":true');
  for (const { socket } of idle.slice(0, 500)) socket.write('GET /healthz HTTP/1.1\r\nHost');
  for (const { socket } of idle) socket.write(`: x\r\n${close}\r\n`);
  await Promise.all(idle.map(({ socket }) => once(socket, 'end')));
  expect(idle.filter((one) => !one.text().startsWith('HTTP/1.1 200 '))).toEqual([]);
});

test('a gateway that stops closes the connections that say nothing, and waits for none', async () => {
  const world = await worldOf({ protocol: 'ollama' });
  const { socket } = await open(world);
  const stopped = world.stopGateway(20_000);
  try {
    await expect
      .poll(() => socket.readableEnded || socket.destroyed, { timeout: 5_000 })
      .toBe(true);
  } finally {
    socket.destroy();
    await stopped;
  }
});
