/** Jobs that are followed: from the start, from the middle, by several, and through another attempt. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { streamKey } from '../../src/admission/index.ts';
import { answerTo } from '../../src/simulator/text.ts';
import { contentOfChunks } from '../support/events.ts';
import { startTestRedis } from '../support/redis.ts';
import { expectRefusal } from './errors.ts';
import { eventually, newWorld, type World, type WorldOptions } from './world.ts';

const answerTokens = { min: 40, max: 40 };

function streaming(options: WorldOptions = {}): Promise<World> {
  return newWorld({
    ...options,
    simulator: { streamTokens: 1, answerTokens, ...options.simulator },
  });
}

interface Said {
  readonly id?: string | undefined;
  readonly event?: string | undefined;
  readonly data: { readonly [field: string]: unknown };
}

async function submit(world: World, body: object, headers = {}): Promise<string> {
  const job = { path: '/v1/chat/completions', body };
  const answer = await world.post('/v1/jobs', job, { headers });
  expect(answer.status).toBe(202);
  return ((await answer.json()) as { id: string }).id;
}

const chat = { stream: true, messages: [{ role: 'user', content: 'Why?' }] };
const text = answerTo('user: Why?', answerTokens).tokens.join('');

/** Everything that a follower hears, up to `count` answers with an id, or its end. */
async function follow(
  url: string,
  id: string,
  { after, count = Number.POSITIVE_INFINITY }: { after?: string; count?: number } = {},
): Promise<Said[]> {
  const controller = new AbortController();
  const headers = after === undefined ? {} : { 'Last-Event-ID': after };
  const { signal } = controller;
  const response = await fetch(`${url}/v1/jobs/${id}/stream`, { headers, signal });
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toContain('text/event-stream');
  const said: Said[] = [];
  let rest = '';
  const decoder = new TextDecoder();
  try {
    for await (const bytes of response.body ?? []) {
      rest += decoder.decode(bytes, { stream: true });
      const parts = rest.split('\n\n');
      rest = parts.pop() ?? '';
      for (const part of parts) {
        if (part.startsWith(':')) continue;
        const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(part)?.[1];
        said.push({
          id: field('id'),
          event: field('event'),
          data: JSON.parse(field('data') ?? ''),
        });
        if (said.filter(({ id }) => id !== undefined).length >= count) controller.abort();
      }
      if (signal.aborted) break;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return said;
}

function contentOf(said: readonly Said[]): string {
  return contentOfChunks(said.filter(({ event }) => event === undefined).map(({ data }) => data));
}

test('a job is followed from where it waits to its end, on any gateway', async () => {
  const world = await streaming({ max: 1 });
  const other = await world.startAnother();
  await world.simulator.setFault({ mode: 'hang', count: 1 });
  const first = await submit(world, chat);
  await world.simulator.until(({ started }) => started === 1);
  const id = await submit(world, chat);
  const followers = [follow(world.url, id), follow(other, id)];
  const channel = streamKey(world.config.domain, id);
  await eventually(async () => (await world.redis.pubsub('NUMSUB', channel))[1] === 2);
  await world.get(`/v1/jobs/${first}`, { method: 'DELETE' });
  for (const said of await Promise.all(followers)) {
    const names = said.map(({ event }) => event ?? 'message');
    expect(names[0]).toBe('position');
    expect(said[0]?.data).toEqual({
      state: 'waiting',
      position: 1,
      ahead: expect.any(Number),
      estimated_start_ms: expect.any(Number),
    });
    expect(names).toContain('running');
    expect(names.at(-1)).toBe('done');
    expect(contentOf(said)).toBe(text);
  }
  const job = (await (await world.get(`/v1/jobs/${id}`)).json()) as {
    response: { body: object[] };
  };
  expect(contentOfChunks(job.response.body)).toBe(text);
});

test('a client that comes back goes on after the event it has seen last, wherever that was', async () => {
  const world = await streaming();
  const other = await world.startAnother();
  const id = await submit(world, chat);
  const all = await follow(world.url, id);
  const ids = all.flatMap(({ id: one }) => one ?? []);
  expect(new Set(ids).size).toBe(ids.length);
  for (const [index, after] of ids.entries()) {
    if (after === 'end') continue;
    const rest = await follow(other, id, { after });
    expect(rest.flatMap(({ id: one }) => one ?? [])).toEqual(ids.slice(index + 1));
  }
  const headers = { 'Last-Event-ID': 'end' };
  expect((await world.get(`/v1/jobs/${id}/stream`, { headers })).status).toBe(204);
});

test('a client that is cut off again and again gets every event once', async () => {
  const world = await streaming({
    simulator: { speed: 60 },
    config: { timeouts: { flush: '5ms' } },
  });
  const urls = [world.url, await world.startAnother()];
  const id = await submit(world, chat);
  const said: Said[] = [];
  for (let visit = 0; said.at(-1)?.event !== 'done'; visit++) {
    const after = said.findLast((one) => one.id !== undefined)?.id;
    const url = urls[visit % 2] ?? '';
    said.push(...(await follow(url, id, { ...(after !== undefined && { after }), count: 3 })));
  }
  expect(contentOf(said)).toBe(text);
  const ids = said.flatMap(({ id: one }) => one ?? []);
  expect(new Set(ids).size).toBe(ids.length);
});

test('a job whose replica fails in the middle is tried again, and its followers are told so', async () => {
  const world = await streaming({ replicas: 2, simulator: { speed: 200 } });
  await world.simulator.setFault({ mode: 'cut', count: 1, after_tokens: 5 });
  const id = await submit(world, chat);
  const said = await follow(world.url, id);
  const restart = said.findIndex(({ event }) => event === 'restart');
  expect(said[restart]?.data).toEqual({ attempt: 2 });
  expect(contentOf(said.slice(0, restart))).not.toBe('');
  expect(contentOf(said.slice(restart))).toBe(text);
  const job = (await (await world.get(`/v1/jobs/${id}`)).json()) as {
    response: { body: object[] };
  };
  expect(contentOfChunks(job.response.body)).toBe(text);
});

test('a job that does not stream is followed to its answer, one that fails to its error', async () => {
  const world = await streaming();
  const id = await submit(world, { ...chat, stream: false });
  const said = await follow(world.url, id);
  const answer = said.find(({ event }) => event === 'answer');
  expect(answer?.data).toMatchObject({
    status: 200,
    content_type: expect.stringContaining('json'),
  });
  expect(JSON.parse(String(answer?.data.body))).toMatchObject({ object: 'chat.completion' });
  expect(said.at(-1)?.event).toBe('done');

  await world.simulator.setFault({ mode: 'error' });
  const failing = await follow(world.url, await submit(world, chat));
  expect(failing.at(-1)).toMatchObject({
    id: 'end',
    event: 'failed',
    data: { state: 'failed', error: { code: 'upstream_failed' } },
  });
});

test('a job goes on without its followers, and stops at once when it is deleted', async () => {
  const world = await streaming();
  await world.simulator.setFault({ mode: 'endless', count: 1 });
  const id = await submit(world, chat);
  await follow(world.url, id, { count: 3 });
  const following = follow(world.url, id);
  expect(world.simulator.state().in_flight).toBe(1);
  await world.get(`/v1/jobs/${id}`, { method: 'DELETE' });
  expect((await following).at(-1)).toMatchObject({ event: 'failed', data: { state: 'cancelled' } });
  await world.simulator.until(({ aborted, in_flight }) => aborted === 1 && in_flight === 0);
  await world.idle();
});

test('what is no id of an event, and what is no job, is refused', async () => {
  const world = await streaming();
  const id = await submit(world, chat);
  const path = `/v1/jobs/${id}/stream`;
  for (const after of ['x', '1', '1-', '-1', '1-1-1', '99999999999-1', '1'.repeat(5_000)]) {
    const refused = await world.get(path, { headers: { 'Last-Event-ID': after } });
    const refusal = { status: 400, code: 'invalid_request', param: 'Last-Event-ID' } as const;
    await expectRefusal(refused, 'openai', refusal);
  }
  const unknown = { status: 404, code: 'unknown_job' } as const;
  await expectRefusal(await world.get('/v1/jobs/nothing/stream'), 'openai', unknown);
  await world.simulator.setFault({ mode: 'hang' });
  const controller = new AbortController();
  const { signal } = controller;
  const init = { signal };
  const waits = world.post('/v1/chat/completions', { ...chat, stream: false }, init).catch(() => 0);
  await world.simulator.until(({ in_flight }) => in_flight === 1);
  const live = world.simulator.state().log.at(-1)?.request_id;
  await expectRefusal(await world.get(`/v1/jobs/${live}/stream`), 'openai', unknown);
  controller.abort();
  await waits;
});

test('an id that Redis does not know begins the answer anew, and says so', async () => {
  const world = await streaming();
  const id = await submit(world, chat);
  await follow(world.url, id);
  for (const after of ['1-999', '7-1']) {
    const said = await follow(world.url, id, { after });
    expect(said[0]).toMatchObject({ event: 'restart', data: { attempt: 1 } });
    expect(contentOf(said)).toBe(text);
  }
  const whole = await submit(world, { ...chat, stream: false });
  await follow(world.url, whole);
  const said = await follow(world.url, whole, { after: '1-7' });
  expect(said.map(({ event }) => event)).toEqual(['restart', 'answer', 'done']);
  const rest = await follow(world.url, whole, { after: '1-1' });
  expect(rest.map(({ event }) => event)).toEqual(['done']);
});

test('many followers of one job cost Redis little, and each hears all of it', async () => {
  // Of its own, whose calls are counted.
  const server = await startTestRedis();
  onTestFinished(() => server.stop());
  const world = await streaming({ redisUrl: server.url, simulator: { speed: 30 } });
  const id = await submit(world, chat);
  const before = await calls(world);
  const all = await Promise.all(Array.from({ length: 150 }, () => follow(world.url, id)));
  for (const said of all) expect(contentOf(said)).toBe(text);
  expect((await calls(world)) - before).toBeLessThan(600);
  await world.idle();
});

/** Steps that Redis has run. */
async function calls(world: World): Promise<number> {
  const stats = await world.redis.info('commandstats');
  return Number(/cmdstat_fcall:calls=(\d+)/.exec(stats)?.[1] ?? 0);
}

test('a follower that leaves leaves no connection behind', async () => {
  const world = await streaming();
  await world.simulator.setFault({ mode: 'endless', count: 1 });
  const id = await submit(world, chat);
  const { hostname, port } = new URL(world.url);
  const sockets = await Promise.all(
    [1, 2, 3].map(async () => {
      const socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true });
      socket.end(`GET /v1/jobs/${id}/stream HTTP/1.1\r\nHost: x\r\n\r\n`);
      socket.resume();
      return once(socket, 'end');
    }),
  );
  expect(sockets).toHaveLength(3);
  await world.get(`/v1/jobs/${id}`, { method: 'DELETE' });
  await world.idle();
});

test('what Redis has lost of an answer is not passed off as whole', async () => {
  const config = { timeouts: { flush: '5ms' } };
  const world = await streaming({ simulator: { speed: 60 }, config });
  const id = await submit(world, chat);
  await follow(world.url, id);
  const stream = streamKey(world.config.domain, id);
  const entries = await world.redis.xrange(stream, '-', '+');
  expect(entries.length).toBeGreaterThan(4);
  await world.redis.xdel(stream, entries.at(-1)?.[0] ?? '');
  const failed = { event: 'failed', data: { error: { code: 'internal' } } };
  expect((await follow(world.url, id)).at(-1)).toMatchObject(failed);
  await world.redis.xdel(stream, entries[1]?.[0] ?? '');
  const lost = { event: 'failed', data: { error: { code: 'unavailable' } } };
  expect((await follow(world.url, id)).at(-1)).toMatchObject(lost);
  const job = (await (await world.get(`/v1/jobs/${id}`)).json()) as object;
  expect(job).toMatchObject({ state: 'done' });
  expect(job).not.toHaveProperty('response');
});
