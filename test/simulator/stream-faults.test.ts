import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { expect, test } from 'vitest';
import type { Simulator } from '../../src/simulator/index.ts';
import { ask, lines, post, quickReplica } from './world.ts';

const generate = { model: 'mistral', prompt: 'a prompt' };
const chat = { model: 'mistral', messages: [{ role: 'user', content: 'a prompt' }] };
const embedding = { model: 'mistral', input: 'a prompt' };

/** Both ways to stream, with the text of a message of theirs. */
const streams = [
  {
    protocol: 'ollama',
    path: '/api/generate',
    body: { ...generate, stream: true },
    last: /"done":true/,
    textOf: (text: string) => lines(text).map((line) => `${line.response ?? ''}`),
  },
  {
    protocol: 'openai',
    path: '/v1/chat/completions',
    body: { ...chat, stream: true },
    last: /data: \[DONE\]/,
    textOf: (text: string) =>
      lines(text.replaceAll('data: [DONE]', '').replaceAll('data: ', '')).map((event) => {
        const [choice] = (event.choices ?? []) as { delta: { content?: string } }[];
        return choice?.delta.content ?? '';
      }),
  },
];

/** An answer that is read piece by piece, for as long as the test wants. */
async function open(replica: Simulator, path: string, body: unknown) {
  const controller = new AbortController();
  const response = await post(replica, path, body, { signal: controller.signal });
  const reader = response.body?.getReader();
  let text = '';
  return {
    response,
    leave: () => controller.abort(),
    /** Reads on until the text is so. */
    async until(condition: (text: string) => boolean): Promise<string> {
      while (!condition(text)) {
        const { value, done } = (await reader?.read()) ?? { done: true };
        if (done) throw new Error(`it ended before: ${text.slice(0, 1000)}`);
        text += Buffer.from(value ?? []).toString();
      }
      return text;
    },
  };
}

/** How the only prompt ended, in the counts and in the log. */
function endOf(replica: Simulator) {
  const { started, in_flight, running, completed, aborted, failed, log } = replica.state();
  expect({ started, in_flight, running }).toEqual({ started: 1, in_flight: 0, running: 0 });
  expect(completed + aborted + failed).toBe(1);
  const { outcome, fault, generated_tokens } = log[0] ?? {};
  return { outcome, fault, generated_tokens };
}

test.each(streams)(
  'stall: $protocol says so much and no more, until the client leaves',
  async ({ path, body, textOf }) => {
    const replica = await quickReplica({ streamTokens: 2, slots: 1 });
    await replica.setFault({ mode: 'stall', after_tokens: 5, count: 1 });
    const stalled = await open(replica, path, body);
    await stalled.until((text) => textOf(text).join('').split(' ').length === 5);
    const { running, in_flight } = await replica.until((counts) => counts.running === 0);
    expect({ running, in_flight }).toEqual({ running: 0, in_flight: 1 });
    const next = stalled.until(() => false);
    expect(await ask(replica).outcome).toMatch(/^200/); // another one takes its place in the batch
    stalled.leave();
    await expect(next).rejects.toThrow(/aborted/);
    await replica.until(({ aborted }) => aborted === 1);
    const entry = { outcome: 'aborted', fault: 'stall', generated_tokens: 5 };
    expect(replica.state().log[0]).toMatchObject(entry);
  },
);

test('stall: by default after one token; without a stream nothing is sent', async () => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'stall' });
  const pending = ask(replica);
  await replica.until(({ in_flight, running_max, running }) => {
    return in_flight === 1 && running_max === 1 && running === 0;
  });
  pending.leave();
  expect(await pending.outcome).toBe('failed: AbortError');
  await replica.until(({ in_flight }) => in_flight === 0);
  expect(endOf(replica)).toEqual({ outcome: 'aborted', fault: 'stall', generated_tokens: 1 });
});

test.each(streams)(
  'malformed: $protocol ends with a message that is no JSON',
  async ({ protocol, path, body, textOf, last }) => {
    const replica = await quickReplica({ streamTokens: 2 });
    await replica.setFault({ mode: 'malformed', after_tokens: 3 });
    const response = await post(replica, path, body);
    expect(response.status).toBe(200);
    const text = await response.text();
    const broken =
      protocol === 'openai'
        ? 'data: {"choices":[{"delta"\n\n'
        : '{"model":"mistral","created_at"\n';
    expect(text.endsWith(`\n${broken}`)).toBe(true);
    expect(text).not.toMatch(last);
    expect(textOf(text.slice(0, -broken.length)).join('').split(' ')).toHaveLength(3);
    expect(endOf(replica)).toEqual({ outcome: 'failed', fault: 'malformed', generated_tokens: 3 });
  },
);

test.each([
  ['/api/generate', { ...generate, stream: false }],
  ['/v1/chat/completions', chat],
  ['/v1/embeddings', embedding],
])('malformed: without a stream the body of %s breaks off', async (path, body) => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'malformed' });
  const response = await post(replica, path, body);
  expect([response.status, response.headers.get('content-type')]).toEqual([
    200,
    'application/json; charset=utf-8',
  ]);
  const text = await response.text();
  expect(text).toMatch(/^\{"/);
  expect(() => JSON.parse(text)).toThrow();
  expect(endOf(replica)).toMatchObject({ outcome: 'failed', fault: 'malformed' });
});

test.each(streams)(
  'endless: $protocol goes on beyond its limit until the client leaves',
  async ({ path, body, textOf }) => {
    const replica = await quickReplica({ answerTokens: { min: 20, max: 20 } });
    await replica.setFault({ mode: 'endless' });
    const stream = await open(replica, path, body);
    const text = await stream.until((read) => {
      return read.endsWith('\n') && textOf(read).join('').split(' ').length >= 200;
    });
    const words = textOf(text).join('').split(' ');
    expect(words.slice(20, 40)).toEqual(words.slice(0, 20));
    expect(replica.state()).toMatchObject({ running: 1, completed: 0 });
    stream.leave();
    await replica.until(({ in_flight }) => in_flight === 0);
    const end = endOf(replica);
    expect(end).toMatchObject({ outcome: 'aborted', fault: 'endless' });
    expect(end.generated_tokens).toBeGreaterThanOrEqual(200);
  },
);

test.each([
  ['/api/generate', { ...generate, stream: false }],
  ['/v1/embeddings', embedding],
])('endless: without a stream the body of %s never ends', async (path, body) => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'endless' });
  const answer = await open(replica, path, body);
  expect(answer.response.headers.get('content-length')).toBeNull();
  const text = await answer.until((read) => read.length > 5000);
  expect(text).toMatch(/^"[^"]*$/);
  answer.leave();
  await replica.until(({ in_flight }) => in_flight === 0);
  expect(endOf(replica)).toMatchObject({ outcome: 'aborted', fault: 'endless' });
});

test.each(streams)(
  'flood: one message of $protocol is huge, and the rest is as ever',
  async ({ path, body, textOf, last }) => {
    const replica = await quickReplica({ streamTokens: 7 });
    const normal = textOf(await (await post(replica, path, body)).text()).join('');
    replica.reset();
    for (const after_tokens of [0, 5, 100_000]) {
      await replica.setFault({ mode: 'flood', after_tokens, bytes: 100_000 });
      const text = await (await post(replica, path, body)).text();
      const parts = textOf(text);
      expect(parts.filter((part) => part === 'x'.repeat(100_000))).toHaveLength(1);
      expect(parts.join('').replace(/x{100000}/, '')).toBe(normal);
      const before = parts.join('').split('xxx')[0] ?? '';
      expect(before.split(' ').filter(Boolean)).toHaveLength(
        Math.min(after_tokens, normal.split(' ').length),
      );
      expect(text).toMatch(last);
      expect(text.match(/"role"/g)?.length ?? 1).toBe(1);
    }
    expect(replica.state()).toMatchObject({ started: 3, completed: 3, in_flight: 0 });
  },
);

test('flood: without a stream the text is that long, and an embedding is as ever', async () => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'flood', bytes: 50_000 });
  const ollama = await post(replica, '/api/generate', { ...generate, stream: false });
  expect(await ollama.json()).toMatchObject({ response: 'x'.repeat(50_000), done: true });
  const openai = await post(replica, '/v1/chat/completions', chat);
  const message = { role: 'assistant', content: 'x'.repeat(50_000) };
  expect(await openai.json()).toMatchObject({ choices: [{ message }] });
  const ray = await fetch(`${replica.url}/infer?text=x`);
  expect(await ray.text()).toBe('x'.repeat(50_000));
  expect((await post(replica, '/v1/embeddings', embedding)).status).toBe(200);
  await replica.setFault({ mode: 'flood' });
  const absent = await fetch(`${replica.url}/infer?text=x`);
  expect((await absent.text()).length).toBe(10_000_000);
  expect(replica.state()).toMatchObject({ completed: 5, started: 5 });
});

const errors: Record<string, string> = {
  openai:
    'data: {"error":{"message":"a simulated error in the stream","type":"server_error",' +
    '"param":null,"code":"internal"}}\n\n',
  ollama: '{"error":"a simulated error in the stream"}\n',
};

test.each(streams)(
  'stream_error: $protocol reports it in its own words and ends',
  async ({ protocol, path, body, textOf, last }) => {
    const error = errors[protocol] ?? '';
    for (const after_tokens of [0, 4]) {
      const replica = await quickReplica({ streamTokens: 3 });
      await replica.setFault({ mode: 'stream_error', after_tokens });
      const response = await post(replica, path, body);
      expect(response.headers.get('content-type')).toMatch(/x-ndjson|event-stream/);
      const text = await response.text();
      expect(text.endsWith(error)).toBe(true);
      expect(text).not.toMatch(last);
      const words = textOf(text.slice(0, -error.length)).join('').split(' ');
      expect(words.filter(Boolean)).toHaveLength(after_tokens);
      const end = { outcome: 'failed', fault: 'stream_error', generated_tokens: after_tokens };
      expect(endOf(replica)).toEqual(end);
    }
  },
);

test('stream_error: without a stream it is a 500', async () => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'stream_error' });
  expect(await ask(replica).outcome).toBe('500 {"error":"a simulated internal error"}');
  const end = { outcome: 'failed', fault: 'stream_error', generated_tokens: 0 };
  expect(endOf(replica)).toEqual(end);
});

test.each([false, true])('headers: a good answer with odd headers (stream: %s)', async (stream) => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'headers' });
  const asked = request(`${replica.url}/v1/chat/completions`, { method: 'POST' });
  asked.end(JSON.stringify({ ...chat, stream }));
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response) text += chunk;
  expect(text).toMatch(stream ? /\[DONE\]/ : /"usage"/);
  expect(response.statusCode).toBe(200);
  expect(response.headers['set-cookie']).toEqual(['odd=1; Path=/', 'odd=2; Path=/; HttpOnly']);
  expect(response.headers['x-long']).toHaveLength(8192);
  expect(response.headers['x-odd']).toBe('\u00e9'); // Node reads and writes headers as Latin-1
  expect(response.headers['content-type']).toMatch(/; charset=utf-8; odd=1; odd=2$/);
  expect(response.trailers).toEqual(stream ? { 'x-odd-trailer': 'odd' } : {});
  expect(endOf(replica)).toMatchObject({ outcome: 'completed', fault: 'headers' });
});

test.each(['stall', 'malformed', 'endless', 'flood', 'stream_error', 'headers'] as const)(
  '%s: hits the next count requests only, set over HTTP',
  async (mode) => {
    const replica = await quickReplica();
    const fault = { mode, count: 1, probability: 1, seed: 3, for_ms: 60_000 };
    const set = await post(replica, '/sim/faults', fault);
    expect(await set.json()).toEqual({ fault });
    const hit = ask(replica, 'one', true);
    await replica.until(({ started }) => started === 1);
    expect(await ask(replica, 'two', true).outcome).toMatch(/^200 .*"done":true/s);
    hit.leave();
    await replica.until(({ in_flight }) => in_flight === 0);
    const state = replica.state();
    expect(state.log.map((entry) => entry.fault)).toEqual([mode, null]);
    expect(state.started).toBe(state.completed + state.aborted + state.failed);
  },
);
