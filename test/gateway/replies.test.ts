/** Replies that no good replica gives: each is a clear error to its one client, and frees its slot. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { contentOf } from '../support/events.ts';
import { expectRefusal } from './errors.ts';
import { newWorld, type World, type WorldOptions } from './world.ts';

type Reply = (response: ServerResponse, request: IncomingMessage) => void;

/** A replica that answers each prompt with the next of `replies`, the last one again and again. */
async function replying(
  replies: readonly Reply[],
  options: WorldOptions = {},
  protocol = 'openai',
): Promise<World> {
  let asked = 0;
  const server = createServer((request, response) => {
    request.resume();
    request.once('end', () => {
      const reply = replies[Math.min(asked, replies.length - 1)];
      asked += 1;
      reply?.(response, request);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const replicas = [1, 2, 3].map((number) => ({ id: `r${number}`, url, protocol }));
  return newWorld({
    ...options,
    config: {
      pools: { odd: { replicas } },
      models: { mistral: { pool: 'odd', control_point: 'mistral-prompt' } },
      ...options.config,
    },
  });
}

const chat = { messages: [{ role: 'user', content: 'Why?' }] };
const path = '/v1/chat/completions';
const chunk = (content: string, finish_reason: string | null = null) =>
  `data: ${JSON.stringify({ id: 'c', choices: [{ index: 0, delta: { content }, finish_reason }] })}\n\n`;
const whole = JSON.stringify({
  choices: [
    { index: 0, message: { role: 'assistant', content: 'Because.' }, finish_reason: 'stop' },
  ],
  usage: { total_tokens: 5 },
});
const good: Reply = (response) => void response.end(whole);

function events(...texts: string[]): Reply {
  return (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const text of texts) response.write(text);
  };
}

test('an answer that says it is complete is complete, however its connection ends', async () => {
  const world = await replying([
    // Stays open.
    events(chunk('Be'), chunk('cause.', 'stop'), 'data: [DONE]\n\n'),
    (response, request) => {
      events(chunk('Because.', 'stop'), 'data: [DONE]\n\n')(response, request);
      response.write('', () => response.destroy());
    },
  ]);
  for (let time = 0; time < 2; time++) {
    const text = await (await world.post(path, { ...chat, stream: true })).text();
    expect(contentOf(text)).toBe('Because.');
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
    await world.idle();
  }
});

const statuses: [name: string, reply: Reply][] = [
  ...[204, 301, 302, 304, 401, 403, 408, 429, 500, 503].map((status): [string, Reply] => [
    String(status),
    (response) => void response.writeHead(status, { location: '/elsewhere' }).end(),
  ]),
  ['200 without a body', (response) => void response.end()],
  [
    'a 500 whose body does not end',
    (response) => void response.writeHead(500, { 'content-length': 100 }).write('x'),
  ],
];

for (const [name, reply] of statuses) {
  test(`${name} is a failure of the replica, and another one is asked`, async () => {
    const world = await replying([reply, good]);
    const answer = await world.post(path, chat);
    expect([answer.status, await answer.text()]).toEqual([200, whole]);
    await world.idle();
  });
}

test("a replica's error reaches its client, however odd it is, and no log", async () => {
  const secret = 'xyzzy';
  const odd = `cannot do ${secret} \ud800 ${'x'.repeat(100_000)}`;
  const error = { error: { message: odd } };
  const told: [stream: boolean, reply: Reply][] = [
    [false, (response) => void response.end(JSON.stringify(error))],
    [true, events(`data: ${JSON.stringify(error)}\n\n`)],
  ];
  for (const [stream, reply] of told) {
    const world = await replying([reply]);
    const answer = await world.post(path, { ...chat, stream });
    const refusal = { status: 502, code: 'upstream_failed' } as const;
    const message = await expectRefusal(answer, 'openai', refusal);
    expect(message).toContain(secret);
    expect(message.length).toBeLessThan(1_100);
    await world.idle();
    expect(world.log()).not.toContain(secret);
    expect(world.log()).toContain('it reported an error');
  }
});

test('in a pool of two protocols only what both can take is taken, wherever it would have gone', async () => {
  const other = await newWorld({ worker: false });
  const { url } = other.simulator;
  const replicas = ['ray', 'ollama'].map((protocol) => ({ id: protocol, url, protocol }));
  const models = { mistral: { pool: 'mixed', control_point: 'mistral-prompt' } };
  const world = await newWorld({ config: { pools: { mixed: { replicas } }, models } });
  for (let time = 0; time < 4; time++) {
    const refused = await world.post(path, { ...chat, max_tokens: 5 });
    const refusal = { status: 400, code: 'invalid_request', param: 'max_tokens' } as const;
    await expectRefusal(refused, 'openai', refusal);
    expect((await world.post(path, chat)).status).toBe(200);
  }
  await world.idle();
});

test('an answer that is too long is none, also when it is its last event that is too long', async () => {
  const limits = { answer_bytes: 1_024 };
  const last = chunk('x'.repeat(2_000), 'stop');
  const replies = [events(chunk('Be'), last, 'data: [DONE]\n\n')];
  const world = await replying(replies, { config: { limits } });
  const text = await (await world.post(path, { ...chat, stream: true })).text();
  expect(text).toContain('larger than 1024 bytes');
  expect(text).not.toContain('[DONE]');
  const ray: Reply = (response) => {
    response.setHeader('content-type', 'text/plain');
    response.end('"'.repeat(900));
  };
  const rayWorld = await replying([ray], { config: { limits } }, 'ray');
  const answer = await rayWorld.post(path, { ...chat, stream: true });
  await expectRefusal(answer, 'openai', { status: 502, code: 'upstream_failed' });
  await rayWorld.idle();
});

test('a repeat under a key hears of the attempt that counts, not of the one that broke off', async () => {
  const [broken, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const replies: Reply[] = [
    (response, request) => {
      events(chunk('old'))(response, request);
      void broken.promise.then(() => response.destroy());
    },
    (response, request) =>
      void released.promise.then(() =>
        events(chunk('new', 'stop'), 'data: [DONE]\n\n')(response, request),
      ),
  ];
  const world = await replying(replies, { config: { timeouts: { keep_alive: '20ms' } } });
  const init = { headers: { 'Idempotency-Key': 'k' } };
  const first = await world.post(path, { ...chat, stream: true }, init);
  const id = first.headers.get('sluice-request-id') ?? '';
  // Whoever follows it keeps it running when the first client has gone.
  const following = await world.get(`/v1/jobs/${id}/stream`);
  broken.resolve();
  expect(await first.text()).toContain('upstream_failed');
  await expect
    .poll(async () => (await world.admission.inspectRequest(id)).request, { timeout: 10_000 })
    .toMatchObject({ state: 'running', attempt: 2 });
  // It has its status when it hears something: that it waits.
  const repeated = await world.post(path, { ...chat, stream: true }, init);
  released.resolve();
  expect(contentOf(await repeated.text())).toBe('new');
  expect(await following.text()).toContain('event: restart');
  await world.idle();
});

test('a client that takes nothing of a long answer in one piece is cut off', async () => {
  const long = JSON.stringify({ ...JSON.parse(whole), more: 'x'.repeat(12_000_000) });
  const timeouts = { slow_reader: '200ms' };
  const world = await replying([(response) => void response.end(long)], { config: { timeouts } });
  const socket = await world.unread(path, chat);
  await world.logged('cancelled');
  const end = once(socket, 'close');
  let bytes = 0;
  socket.on('data', (more) => {
    bytes += more.length;
  });
  socket.resume();
  await end;
  expect(bytes).toBeLessThan(long.length);
  const next = await world.post(path, chat);
  expect((await next.text()).length).toBe(long.length);
  await world.idle();
});
