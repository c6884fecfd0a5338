/** Streams through gateway, Redis and worker: what a client hears, and how each of them ends. */
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { streamKey } from '../../src/admission/index.ts';
import { answerTo } from '../../src/simulator/text.ts';
import { contentOf, dataOf } from '../support/events.ts';
import { newWorld, type World, type WorldOptions } from './world.ts';

const answerTokens = { min: 40, max: 40 };
const simulator = { streamTokens: 1, answerTokens };

function chat(content = 'Why is the sky blue?'): object {
  return { model: 'mistral', stream: true, messages: [{ role: 'user', content }] };
}

/** What the replica says to a chat of one message. */
function whole(content = 'Why is the sky blue?'): string {
  return answerTo(`user: ${content}`, answerTokens).tokens.join('');
}

/** A client whose stream can be looked at while it comes. */
class Client {
  text = '';
  readonly ended: Promise<void>;
  readonly response: Response;
  readonly #controller: AbortController;

  private constructor(response: Response, controller: AbortController) {
    this.response = response;
    this.#controller = controller;
    this.ended = this.#read();
  }

  static async open(world: World, path: string, body: object, headers = {}): Promise<Client> {
    const controller = new AbortController();
    const init = { signal: controller.signal, headers };
    return new Client(await world.post(path, body, init), controller);
  }

  until(condition: (text: string) => boolean): Promise<void> {
    return expect.poll(() => condition(this.text), { timeout: 10_000, interval: 5 }).toBe(true);
  }

  leave(): void {
    this.#controller.abort();
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    try {
      for await (const bytes of this.response.body ?? []) {
        this.text += decoder.decode(bytes, { stream: true });
      }
    } catch (error) {
      if (!this.#controller.signal.aborted) throw error;
    }
  }
}

function streaming(options: WorldOptions = {}): Promise<World> {
  return newWorld({ ...options, simulator: { ...simulator, ...options.simulator } });
}

test('a stream is whole and in order, with id and wait, and is written in batches', async () => {
  const world = await streaming({ simulator: { speed: 100 } });
  const client = await Client.open(world, '/v1/chat/completions', chat());
  const { headers } = client.response;
  expect(headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  expect(headers.get('cache-control')).toBe('no-cache');
  expect(headers.get('x-accel-buffering')).toBe('no');
  expect(headers.get('sluice-queue-ms')).toMatch(/^\d{1,4}$/);
  await client.ended;
  expect(client.text.endsWith('data: [DONE]\n\n')).toBe(true);
  expect(contentOf(client.text)).toBe(whole());
  const id = headers.get('sluice-request-id') ?? '';
  const entries = await world.redis.xlen(streamKey(world.config.domain, id));
  expect(entries).toBeGreaterThan(1);
  expect(entries).toBeLessThan(dataOf(client.text).length / 2);
  expect(await world.redis.pttl(streamKey(world.config.domain, id))).toBeGreaterThan(0);
  await world.idle();
});

test('a client that waits hears where, and gets its answer in the same stream', async () => {
  const config = { timeouts: { keep_alive: '20ms' } };
  const world = await streaming({ max: 1, config });
  await world.simulator.setFault({ mode: 'hang', count: 1 });
  const first = Client.open(world, '/v1/chat/completions', chat());
  await world.simulator.until(({ started }) => started === 1);
  const client = await Client.open(world, '/v1/chat/completions', chat('And the sea?'));
  await client.until((text) => (text.match(/^: waiting at position 1, /gm)?.length ?? 0) > 1);
  expect(client.text).toMatch(/: waiting at position 1, \d+ ahead, estimated start in \d+ ms\n\n/);
  (await first).leave();
  await client.ended;
  expect(contentOf(client.text)).toBe(whole('And the sea?'));
  expect(client.text.endsWith('data: [DONE]\n\n')).toBe(true);
  await world.idle();
});

test("Ollama's clients hear nothing but white space until their answer", async () => {
  const world = await streaming({ max: 1, config: { timeouts: { keep_alive: '20ms' } } });
  await world.simulator.setFault({ mode: 'hang', count: 1 });
  const first = Client.open(world, '/v1/chat/completions', chat());
  await world.simulator.until(({ started }) => started === 1);
  const client = await Client.open(world, '/api/generate', { prompt: 'Why?' });
  await client.until((text) => text.length > 2);
  expect(client.text.trim()).toBe('');
  (await first).leave();
  await client.ended;
  const lines = client.text.trimEnd().split('\n');
  expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({ done: true });
  expect(lines.map((line) => JSON.parse(line).response).join('').length).toBeGreaterThan(100);
});

test('until a client hears something, an end has its HTTP status; then it is told in the stream', async () => {
  const world = await streaming({ max: 1, config: { timeouts: { keep_alive: '60ms' } } });
  await world.simulator.setFault({ mode: 'hang', count: 1 });
  const first = Client.open(world, '/v1/chat/completions', chat());
  await world.simulator.until(({ started }) => started === 1);
  const soon = { 'Sluice-Timeout-Ms': '1' };
  const early = await Client.open(world, '/v1/chat/completions', chat(), soon);
  expect(early.response.status).toBe(504);
  expect(early.response.headers.get('retry-after')).toBe('1');
  const later = { 'Sluice-Timeout-Ms': '500' };
  const late = await Client.open(world, '/v1/chat/completions', chat(), later);
  const lines = await Client.open(world, '/api/generate', { prompt: 'Why?' }, later);
  await Promise.all([late.ended, lines.ended]);
  expect(late.response.status).toBe(200);
  expect(JSON.parse(dataOf(late.text).at(-1) ?? '')).toEqual({
    error: expect.objectContaining({ code: 'queue_timeout', type: 'server_error' }),
  });
  expect(JSON.parse(lines.text)).toEqual({ error: expect.any(String), code: 'queue_timeout' });
  (await first).leave();
  await world.idle();
});

const afterFive = { count: 1, after_tokens: 5 };
const broken = [
  { mode: 'cut', ...afterFive },
  { mode: 'malformed', ...afterFive },
  { mode: 'stream_error', ...afterFive },
  { mode: 'stall', ...afterFive },
  { mode: 'flood', bytes: 10_000_000, ...afterFive },
] as const;

for (const fault of broken) {
  test(`a replica that fails after its first token (${fault.mode}) is told in the stream`, async () => {
    const config = { timeouts: { stream_idle: '200ms' } };
    const world = await streaming({ simulator: { speed: 300 }, replicas: 2, config });
    await world.simulator.setFault(fault);
    const client = await Client.open(world, '/v1/chat/completions', chat());
    await client.ended;
    expect(client.response.status).toBe(200);
    const data = dataOf(client.text);
    expect(JSON.parse(data.at(-1) ?? '')).toMatchObject({ error: { code: 'upstream_failed' } });
    expect(data).not.toContain('[DONE]');
    const content = contentOf(client.text);
    expect(content).not.toBe('');
    expect(whole().startsWith(content)).toBe(true);
    // No second attempt: its client has the beginning of the first.
    expect(world.simulator.state().started).toBe(1);
    await world.idle();
    const next = await Client.open(world, '/v1/chat/completions', chat());
    await next.ended;
    expect(contentOf(next.text)).toBe(whole());
  });
}

const beforeTheFirst = [
  { mode: 'cut', count: 1, after_tokens: 0 },
  { mode: 'malformed', count: 1, after_tokens: 0 },
  { mode: 'stream_error', count: 1, after_tokens: 0 },
  { mode: 'hang', count: 1 },
] as const;

for (const fault of beforeTheFirst) {
  test(`a replica that fails before its first token (${fault.mode}) is not seen by the client`, async () => {
    const config = { timeouts: { first_token: '200ms' } };
    const world = await streaming({ replicas: 2, config });
    await world.simulator.setFault(fault);
    const client = await Client.open(world, '/v1/chat/completions', chat());
    await client.ended;
    expect(contentOf(client.text)).toBe(whole());
    expect(client.text.endsWith('data: [DONE]\n\n')).toBe(true);
    expect(world.simulator.state().started).toBe(2);
    await world.idle();
  });
}

test('a stream without end is ended at the size of an answer, and its replica stops', async () => {
  const world = await streaming({ config: { limits: { answer_bytes: 20_000 } } });
  await world.simulator.setFault({ mode: 'endless', count: 1 });
  const client = await Client.open(world, '/v1/chat/completions', chat());
  await client.ended;
  const last = JSON.parse(dataOf(client.text).at(-1) ?? '');
  expect(last.error).toMatchObject({ code: 'upstream_failed' });
  expect(last.error.message).toContain('larger than 20000 bytes');
  await world.simulator.until(({ aborted }) => aborted === 1);
  await world.idle();
});

test('a stream without end is ended with its lease, and its replica stops', async () => {
  const world = await streaming({
    max: 0,
    config: { policies: [], timeouts: { max_inflight: '1500ms' } },
  });
  await world.simulator.setFault({ mode: 'endless', count: 1 });
  const client = await Client.open(world, '/v1/chat/completions', chat());
  await client.ended;
  const last = JSON.parse(dataOf(client.text).at(-1) ?? '');
  expect(last.error).toMatchObject({ code: 'expired' });
  await world.simulator.until(({ aborted }) => aborted === 1);
  await world.idle();
});

test('a client that leaves in the middle of its stream stops the replica and frees its slot', async () => {
  const world = await streaming({ max: 1, simulator: { speed: 20 } });
  await world.simulator.setFault({ mode: 'endless', count: 1 });
  const client = await Client.open(world, '/v1/chat/completions', chat());
  await client.until((text) => dataOf(text).length > 3);
  client.leave();
  await world.simulator.until(({ aborted, running }) => aborted === 1 && running === 0);
  const { generated_tokens } = world.simulator.state().log.at(-1) ?? {};
  await world.idle();
  // Nothing is generated after that: another prompt runs meanwhile, and the count has not moved.
  const next = await Client.open(world, '/v1/chat/completions', chat());
  await next.ended;
  expect(world.simulator.state().log[0]).toMatchObject({ outcome: 'aborted', generated_tokens });
});

test('a client that leaves before its first token, in the queue or at the replica, leaves nothing', async () => {
  const world = await streaming({ max: 1, config: { timeouts: { keep_alive: '20ms' } } });
  await world.simulator.setFault({ mode: 'hang' });
  const running = await Client.open(world, '/v1/chat/completions', chat());
  await world.simulator.until(({ in_flight }) => in_flight === 1);
  const waiting = await Client.open(world, '/v1/chat/completions', chat());
  await world.until((view) => view.waiting === 1);
  waiting.leave();
  await world.until((view) => view.waiting === 0);
  running.leave();
  await world.simulator.until(({ aborted, in_flight }) => aborted === 1 && in_flight === 0);
  await world.idle();
  expect(world.simulator.state().started).toBe(1);
});

test("a replica's odd headers stay with it", async () => {
  const world = await streaming();
  await world.simulator.setFault({ mode: 'headers' });
  const client = await Client.open(world, '/v1/chat/completions', chat());
  await client.ended;
  expect(contentOf(client.text)).toBe(whole());
  const answer = await world.post('/v1/chat/completions', { ...chat(), stream: false });
  expect(await answer.json()).toMatchObject({ choices: [{ message: { content: whole() } }] });
  for (const { headers } of [client.response, answer]) {
    expect([...headers.keys()].filter((name) => /cookie|odd|long|trailer/.test(name))).toEqual([]);
    expect(headers.get('content-type')).toMatch(/^(text\/event-stream|application\/json)/);
  }
});

test('a client that reads nothing is cut off, and what it asked for is over', async () => {
  const config = { timeouts: { slow_reader: '300ms' } };
  // More than the buffers of the system take.
  const long = { answerTokens: { min: 60_000, max: 60_000 } };
  const world = await streaming({ config, simulator: long });
  const socket = await world.unread('/v1/chat/completions', chat());
  await world.logged('cancelled');
  await world.idle();
  const end = once(socket, 'close');
  socket.resume();
  await end;
});

test('a client that reads late gets all of it', async () => {
  const world = await streaming({ simulator: { answerTokens: { min: 30_000, max: 30_000 } } });
  const socket = await world.unread('/v1/chat/completions', { ...chat(), max_tokens: 30_000 });
  await world.simulator.until(({ completed }) => completed === 1);
  await world.idle();
  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (more: string) => {
    text += more;
    if (text.includes('[DONE]')) socket.end();
  });
  socket.resume();
  await once(socket, 'close');
  // Chunks of the transfer cut lines anywhere: their sizes stand on lines of their own.
  const body = text
    .slice(text.indexOf('\r\n\r\n') + 4)
    .replaceAll(/\r\n[0-9a-f]+\r\n|^[0-9a-f]+\r\n/g, '');
  const expected = answerTo('user: Why is the sky blue?', { min: 30_000, max: 30_000 });
  expect(contentOf(body)).toBe(expected.tokens.join(''));
});
