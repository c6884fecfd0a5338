import { request } from 'node:http';
import { expect, test } from 'vitest';
import { ask, post, quickReplica, slowReplica } from './world.ts';

test('counts what runs at once, what waits inside, and the most there ever was', async () => {
  const replica = await slowReplica({ slots: 2 });
  const pending = Array.from({ length: 5 }, (_, index) => ask(replica, `prompt ${index}`));
  await replica.until(({ in_flight }) => in_flight === 5);
  expect(replica.state()).toMatchObject({ running: 2, queued: 3, started: 5, completed: 0 });
  for (const { leave } of pending) leave();
  await replica.until(({ in_flight }) => in_flight === 0);
  expect(replica.state()).toMatchObject({
    ...{ in_flight_max: 5, running: 0, running_max: 2, queued: 0, queued_max: 3 },
    ...{ started: 5, aborted: 5, completed: 0, failed: 0 },
  });
});

test('one after the other never counts as two at once', async () => {
  const replica = await quickReplica();
  for (let index = 0; index < 10; index++) await ask(replica, `prompt ${index}`).outcome;
  expect(replica.state()).toMatchObject({ in_flight_max: 1, running_max: 1, completed: 10 });
});

test('a hundred at once all end, in batches of the size that was set', async () => {
  const replica = await quickReplica({ slots: 3, speed: 3000 });
  const pending = Array.from({ length: 100 }, (_, index) =>
    ask(replica, `${index}`, index % 2 === 0),
  );
  for (const { outcome } of pending) expect(await outcome).toMatch(/^200 /);
  const { running_max, in_flight, completed } = replica.state();
  expect([running_max, in_flight, completed]).toEqual([3, 0, 100]);
});

test.each([false, true])(
  'a client that leaves frees its place at once (stream: %s)',
  async (stream) => {
    const replica = await slowReplica({ slots: 1 });
    const first = ask(replica, 'first', stream);
    await replica.until(({ running }) => running === 1);
    const second = ask(replica, 'second', stream);
    await replica.until(({ queued }) => queued === 1);
    first.leave();
    await replica.until(
      ({ aborted, running, queued }) => aborted === 1 && running === 1 && queued === 0,
    );
    second.leave();
    await replica.until(({ in_flight }) => in_flight === 0);
    expect(replica.state().log.map(({ outcome }) => outcome)).toEqual(['aborted', 'aborted']);
  },
);

test('a stream is sent while it is written, and leaving in the middle aborts it', async () => {
  const replica = await slowReplica({ speed: 20 });
  const controller = new AbortController();
  const { signal } = controller;
  const response = await post(
    replica,
    '/api/generate',
    { model: 'mistral', prompt: 'x' },
    { signal },
  );
  const reader = response.body?.getReader();
  const first = await reader?.read();
  expect(Buffer.from(first?.value ?? []).toString()).toContain('"done":false');
  expect(replica.state()).toMatchObject({ in_flight: 1, completed: 0 });
  expect(replica.state().log[0]?.generated_tokens).toBeNull();
  controller.abort();
  await replica.until(({ aborted, running }) => aborted === 1 && running === 0);
  const { generated_tokens, answer_tokens = 0 } = replica.state().log[0] ?? {};
  expect(generated_tokens).toBeGreaterThanOrEqual(1);
  expect(generated_tokens).toBeLessThan(answer_tokens);
});

test('a prompt that was aborted before its turn has generated nothing', async () => {
  const replica = await slowReplica({ slots: 1 });
  const [first, second] = [ask(replica, 'one'), ask(replica, 'two')];
  await replica.until(({ queued }) => queued === 1);
  const waiting = replica.state().log[1]?.order;
  second.leave();
  first.leave();
  await replica.until(({ aborted }) => aborted === 2);
  const entry = replica.state().log.find(({ order }) => order === waiting);
  expect(entry).toMatchObject({ outcome: 'aborted', generated_tokens: 0 });
});

test('bodies and queries are kept as they came, only when asked for, and not beyond 64 Ki', async () => {
  const body = '{ "model":"mistral",  "prompt": "caf\u00e9", "options": {"num_predict": 1.0} }';
  const long = JSON.stringify({ model: 'mistral', prompt: 'x'.repeat(70_000) });
  const kept = await quickReplica({ keepBodies: true, prefillTokensPerSecond: 1e6 });
  const plain = await quickReplica();
  for (const replica of [kept, plain]) {
    await (await post(replica, '/api/generate', body)).text();
    await (await fetch(`${replica.url}/infer?text=a%20b+c&x=%41`)).text();
  }
  await (await post(kept, '/api/generate', long)).text();
  const [first, second, third] = kept.state().log;
  expect(first).toMatchObject({ body });
  expect(first).not.toHaveProperty('query');
  expect(second?.query).toBe('text=a%20b+c&x=%41');
  expect(second).not.toHaveProperty('body');
  expect(third?.body).toBe(long.slice(0, 65_536));
  for (const entry of plain.state().log) {
    expect(entry).not.toHaveProperty('body');
    expect(entry).not.toHaveProperty('query');
  }
});

test('a client that leaves half-way through its body was never taken', async () => {
  const replica = await quickReplica();
  const half = request(`${replica.url}/api/generate`, { method: 'POST' });
  half.on('error', () => {});
  half.write('{"model": "mis');
  await new Promise((resolve) => half.once('socket', (socket) => socket.once('connect', resolve)));
  half.destroy();
  await replica.until(({ rejected }) => rejected === 1);
  expect(replica.state()).toMatchObject({ started: 0, aborted: 0 });
});

test('the log keeps the start order, ids, attempts, times and outcomes, and is bounded', async () => {
  const replica = await quickReplica({ logSize: 2 });
  for (const attempt of ['1', '2', 'x']) {
    const headers = { 'sluice-request-id': `request-${attempt}`, 'sluice-attempt': attempt };
    const body = { model: 'mistral', messages: [{ role: 'user', content: 'hi' }], max_tokens: 3 };
    await (await post(replica, '/v1/chat/completions', body, { headers })).text();
  }
  const { log } = replica.state();
  const common = {
    path: '/v1/chat/completions',
    stream: false,
    prompt_tokens: 2,
    answer_tokens: 3,
    generated_tokens: 3,
  };
  const times = { started_at: expect.any(Number), ended_at: expect.any(Number) };
  const rest = { ...common, ...times, outcome: 'completed', fault: null };
  expect(log).toEqual([
    { order: 2, request_id: 'request-2', attempt: 2, ...rest },
    { order: 3, request_id: 'request-x', attempt: null, ...rest },
  ]);
  expect(log[0]?.started_at).toBeLessThanOrEqual(log[0]?.ended_at ?? 0);
  expect(Number.isInteger(log[0]?.started_at)).toBe(true);
});

test('state and reset over HTTP; what is in flight survives a reset and the sums still agree', async () => {
  const replica = await slowReplica({ slots: 1 });
  const pending = [ask(replica, 'one'), ask(replica, 'two')];
  await replica.until(({ in_flight }) => in_flight === 2);
  pending[0]?.leave();
  await replica.until(({ in_flight }) => in_flight === 1);
  const before = await (await fetch(`${replica.url}/sim/state`)).json();
  expect(before).toMatchObject({ in_flight_max: 2, aborted: 1, slots: 1, listening: true });
  const after = await (await post(replica, '/sim/reset', '')).json();
  expect(after).toMatchObject({ in_flight: 1, in_flight_max: 1, started: 1, aborted: 0, log: [] });
  pending[1]?.leave();
  const end = await replica.until(({ in_flight }) => in_flight === 0);
  expect(end.started).toBe(end.completed + end.aborted + end.failed);
});

test('more than maxQueued waiting is answered 503 and counted as rejected', async () => {
  const replica = await slowReplica({ slots: 1, maxQueued: 1 });
  const pending = [ask(replica, 'one'), ask(replica, 'two')];
  await replica.until(({ queued }) => queued === 1);
  const response = await post(replica, '/api/generate', { model: 'mistral', prompt: 'three' });
  expect([response.status, response.headers.get('retry-after')]).toEqual([503, '1']);
  expect(replica.state()).toMatchObject({ rejected: 1, started: 2 });
  for (const { leave } of pending) leave();
});

test('stop may be repeated, aborts what runs, and leaves nothing listening', async () => {
  const replica = await slowReplica();
  const pending = ask(replica);
  await replica.until(({ running }) => running === 1);
  await Promise.all([replica.stop(), replica.stop()]);
  await replica.stop();
  expect(await pending.outcome).toMatch(/^failed/);
  expect(replica.state()).toMatchObject({ in_flight: 0, aborted: 1, running: 0, listening: false });
  await expect(fetch(`${replica.url}/healthz`)).rejects.toThrow();
});

test('two replicas give the same answer to the same prompt', async () => {
  const [one, other] = await Promise.all([quickReplica(), quickReplica({ slots: 1, speed: 500 })]);
  const answers = await Promise.all(
    [one, other].map(async (replica) => {
      const body = { model: 'mistral', prompt: 'The same?', stream: false };
      return (await (await post(replica, '/api/generate', body)).json()) as { response: string };
    }),
  );
  expect(answers[0]?.response).toBe(answers[1]?.response);
});

test('until gives up after its time and says what it saw', async () => {
  const replica = await quickReplica();
  await expect(replica.until(({ started }) => started > 0, 5)).rejects.toThrow(/"started":0/);
});

test.each([
  { slots: 0 },
  { slots: 1.5 },
  { speed: 0 },
  { speed: Number.NaN },
  { port: 70_000 },
  { answerTokens: { min: 5, max: 4 } },
])('an option out of its range is refused by name: %o', async (options) => {
  const name = Object.keys(options)[0];
  await expect(quickReplica(options)).rejects.toThrow(`${name}`);
});
