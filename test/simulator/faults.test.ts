import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { FaultSwitch, parseFault } from '../../src/simulator/faults.ts';
import { ask, lines, post, quickReplica, slowReplica } from './world.ts';

const prompt = { model: 'mistral', prompt: 'a prompt', stream: false };

test('none: a fault is taken back and all is well again', async () => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'error' });
  expect((await post(replica, '/api/generate', prompt)).status).toBe(500);
  await replica.setFault({ mode: 'none' });
  expect((await post(replica, '/api/generate', prompt)).status).toBe(200);
});

test('refuse: connects are refused until it is taken back, on the same port', async () => {
  const replica = await quickReplica();
  const { port } = replica;
  expect((await fetch(`${replica.url}/healthz`)).status).toBe(200);
  await replica.setFault({ mode: 'refuse' });
  expect(replica.state().listening).toBe(false);
  const refused = await fetch(`${replica.url}/healthz`).catch((error: Error) => error.cause);
  expect(refused).toMatchObject({ code: 'ECONNREFUSED' });
  await replica.setFault({ mode: 'none' });
  expect((await fetch(`${replica.url}/healthz`)).status).toBe(200);
  expect(replica.port).toBe(port);
});

test('refuse: set over HTTP it answers first, and comes back after for_ms', async () => {
  const replica = await quickReplica();
  const response = await post(replica, '/sim/faults', { mode: 'refuse', for_ms: 700 });
  expect(await response.json()).toEqual({ fault: { mode: 'refuse', for_ms: 700 } });
  await expect(fetch(`${replica.url}/healthz`)).rejects.toThrow();
  await expect.poll(() => replica.state().listening, { interval: 5, timeout: 10_000 }).toBe(true);
  expect((await fetch(`${replica.url}/healthz`)).status).toBe(200);
});

test('refuse: an answer under way is finished', async () => {
  const replica = await slowReplica({ speed: 200, streamTokens: 20 });
  const response = await post(replica, '/api/generate', { ...prompt, stream: true });
  await replica.setFault({ mode: 'refuse' });
  expect(lines(await response.text()).at(-1)).toMatchObject({ done: true });
  expect(replica.state()).toMatchObject({ completed: 1, in_flight: 0 });
});

test('refuse: a replica that refuses can be stopped', async () => {
  const replica = await slowReplica();
  const pending = ask(replica);
  await replica.until(({ running }) => running === 1);
  await replica.setFault({ mode: 'refuse', for_ms: 60_000 });
  await replica.stop();
  expect(await pending.outcome).toMatch(/^failed/);
});

test('unavailable: 503 with Retry-After in the shape of each protocol, and nothing is held', async () => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'unavailable', retry_after_s: 7 });
  const ollama = await post(replica, '/api/generate', prompt);
  expect([ollama.status, ollama.headers.get('retry-after')]).toEqual([503, '7']);
  expect(await ollama.json()).toEqual({ error: 'a simulated outage' });
  const chat = { model: 'mistral', messages: [{ role: 'user', content: 'x' }] };
  const openai = await post(replica, '/v1/chat/completions', chat);
  expect(await openai.json()).toMatchObject({
    error: { type: 'server_error', code: 'unavailable' },
  });
  const ray = await fetch(`${replica.url}/infer?text=x`);
  expect([ray.status, await ray.text()]).toEqual([503, 'a simulated outage']);
  expect(replica.state()).toMatchObject({ failed: 3, started: 3, in_flight_max: 0, fault_hits: 3 });
});

test('error: 500, for the next count requests only', async () => {
  const replica = await quickReplica();
  await post(replica, '/sim/faults', { mode: 'error', count: 2 });
  const statuses: number[] = [];
  for (let index = 0; index < 4; index++) {
    statuses.push((await post(replica, '/api/generate', prompt)).status);
  }
  expect(statuses).toEqual([500, 500, 200, 200]);
  expect(replica.state()).toMatchObject({ failed: 2, completed: 2, fault: { mode: 'none' } });
});

test('hang: the request is taken and never answered, until the client leaves', async () => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'hang', count: 1 });
  const hung = ask(replica);
  await replica.until(({ in_flight }) => in_flight === 1);
  expect(await ask(replica).outcome).toMatch(/^200/); // another one passes it
  expect(replica.state()).toMatchObject({ in_flight: 1, running: 0 });
  hung.leave();
  await replica.until(({ aborted }) => aborted === 1);
});

test('slow: the answer takes the factor longer', async () => {
  const replica = await quickReplica();
  const times: number[] = [];
  for (const fault of [{ mode: 'none' }, { mode: 'slow', factor: 5 }] as const) {
    await replica.setFault(fault);
    const answer = await (await post(replica, '/api/generate', prompt)).json();
    times.push((answer as { total_duration: number }).total_duration);
  }
  const [normal = 0, slowed = 0] = times;
  expect(slowed / normal).toBeCloseTo(5, 3);
});

test.each([1, 30, 100_000])(
  'cut: a stream breaks off after %i tokens or at its end',
  async (after) => {
    const replica = await quickReplica({ streamTokens: 7 });
    await replica.setFault({ mode: 'cut', after_tokens: after });
    const response = await post(replica, '/api/generate', { ...prompt, stream: true });
    let text = '';
    const reading = (async () => {
      for await (const chunk of response.body ?? []) text += Buffer.from(chunk).toString();
    })();
    await expect(reading).rejects.toThrow();
    const parts = lines(text);
    expect(parts.every(({ done }) => done === false)).toBe(true);
    const answered = replica.state().log[0]?.answer_tokens ?? 0;
    const words = parts
      .map((part) => part.response)
      .join('')
      .split(' ');
    expect(words).toHaveLength(Math.min(after, answered));
    expect(replica.state()).toMatchObject({ failed: 1, completed: 0, in_flight: 0, running: 0 });
  },
);

test('cut: without a stream the client gets nothing at all', async () => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'cut' });
  expect(await ask(replica).outcome).toMatch(/^failed/);
  expect(replica.state()).toMatchObject({ failed: 1, aborted: 0 });
});

test('die: the process calls its end on arrival, or after some tokens', async () => {
  let deaths = 0;
  const replica = await quickReplica({ onDie: () => deaths++ });
  await replica.setFault({ mode: 'die', count: 1 });
  expect(await ask(replica).outcome).toMatch(/^failed/);
  expect(deaths).toBe(1);
  await replica.setFault({ mode: 'die', after_tokens: 3 });
  const response = await post(replica, '/api/generate', { ...prompt, stream: true });
  await expect(response.text()).rejects.toThrow();
  expect(deaths).toBe(2);
  expect(replica.state()).toMatchObject({ failed: 2, in_flight: 0 });
});

test('die: a replica in a process of its own really ends', async () => {
  const source = new URL('../../src/simulator/index.ts', import.meta.url).href;
  const script = `
    import { startSimulator } from '${source}';
    const replica = await startSimulator({ onDie: () => process.exit(1) });
    process.stdout.write(replica.url);
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(child, 'exit');
  try {
    const [url] = await once(child.stdout, 'data');
    const asked = { method: 'POST', body: JSON.stringify({ mode: 'die' }) };
    expect((await fetch(`${url}/sim/faults`, asked)).status).toBe(200);
    await expect(fetch(`${url}/infer?text=x`)).rejects.toThrow();
    expect(await exit).toEqual([1, null]);
  } finally {
    child.kill('SIGKILL');
  }
});

test('scope all hits probes and lists too; without it only prompts are hit', async () => {
  const replica = await quickReplica();
  const probe = async () =>
    Promise.all(
      ['/healthz', '/v1/models', '/api/version'].map(
        async (path) => (await fetch(`${replica.url}${path}`)).status,
      ),
    );
  await replica.setFault({ mode: 'unavailable' });
  expect(await probe()).toEqual([200, 200, 200]);
  await replica.setFault({ mode: 'unavailable', scope: 'all' });
  expect(await probe()).toEqual([503, 503, 503]);
  expect((await fetch(`${replica.url}/sim/state`)).status).toBe(200);
});

test('hang with scope all leaves a probe without an answer', async () => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'hang', scope: 'all' });
  const signal = AbortSignal.timeout(50);
  await expect(fetch(`${replica.url}/healthz`, { signal })).rejects.toThrow(/aborted/);
});

test('for_ms heals by itself', async () => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'error', for_ms: 300 });
  expect((await post(replica, '/api/generate', prompt)).status).toBe(500);
  await expect
    .poll(() => replica.state().fault.mode, { interval: 5, timeout: 10_000 })
    .toBe('none');
});

test('probability hits about that share, and the same ones for the same seed', () => {
  const draws = (seed: number) => {
    const faults = new FaultSwitch();
    faults.set({ mode: 'error', probability: 0.3, seed });
    return Array.from({ length: 1000 }, () => faults.draw('prompt') !== undefined);
  };
  const hits = draws(7).filter(Boolean).length;
  expect(hits).toBeGreaterThan(240);
  expect(hits).toBeLessThan(360);
  expect(draws(7)).toEqual(draws(7));
  expect(draws(7)).not.toEqual(draws(8));
});

test('match hits only prompts that hold the text', async () => {
  const replica = await quickReplica();
  await replica.setFault({ mode: 'error', match: 'poison' });
  const status = async (text: string) =>
    (await post(replica, '/api/generate', { ...prompt, prompt: text })).status;
  expect([await status('a rose'), await status('some poison')]).toEqual([200, 500]);
  const infer = async (text: string) => (await fetch(`${replica.url}/infer?text=${text}`)).status;
  expect([await infer('rose'), await infer('poison')]).toEqual([200, 500]);
});

test('with a probability, count counts the hits', () => {
  const faults = new FaultSwitch();
  faults.set({ mode: 'error', probability: 0.5, count: 3 });
  const hits = Array.from({ length: 100 }, () => faults.draw('prompt')).filter(Boolean);
  expect(hits).toHaveLength(3);
  expect(faults.current).toEqual({ mode: 'none' });
});

const nonsense: [unknown, RegExp][] = [
  [null, /a fault is an object/],
  [[], /a fault is an object/],
  [{}, /mode must be one of none, refuse,/],
  [{ mode: 'explode' }, /mode must be one of/],
  [{ mode: 'error', count: 0 }, /count must be an integer from 1/],
  [{ mode: 'error', count: '2' }, /count must be an integer/],
  [{ mode: 'error', probability: 1.5 }, /probability must be a number from 0 to 1/],
  [{ mode: 'error', match: '' }, /match must be a text of 1 to 1000 characters/],
  [{ mode: 'error', seed: -1 }, /seed/],
  [{ mode: 'slow', factor: 0.5 }, /factor must be a number from 1/],
  [{ mode: 'refuse', count: 3 }, /count does not go with mode refuse/],
  [{ mode: 'cut', scope: 'all' }, /scope does not go with mode cut/],
  [{ mode: 'error', toString: 1 }, /toString is unknown/],
  [{ mode: 'hang', scope: 'some', for_ms: 0.5 }, /scope must be prompts or all; for_ms must/],
  [{ mode: 'stall', scope: 'all' }, /scope does not go with mode stall/],
  [{ mode: 'malformed', after_tokens: -1 }, /after_tokens must be an integer from 0/],
  [{ mode: 'endless', after_tokens: 1 }, /after_tokens does not go with mode endless/],
  [{ mode: 'flood', bytes: 0 }, /bytes must be an integer from 1/],
  [{ mode: 'stream_error', bytes: 5 }, /bytes does not go with mode stream_error/],
  [{ mode: 'headers', after_tokens: 1 }, /after_tokens does not go with mode headers/],
  [{ mode: 'die' }, /not a process of its own/],
];

test.each(nonsense)(
  'nonsense is refused with the reason and changes nothing: %o',
  async (fault, reason) => {
    expect(() => parseFault(fault, false)).toThrow(reason);
    const replica = await quickReplica();
    await replica.setFault({ mode: 'slow', factor: 2 });
    const response = await post(replica, '/sim/faults', JSON.stringify(fault));
    expect(response.status).toBe(400);
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    expect(error).toMatchObject({
      code: 'invalid_request',
      message: expect.stringMatching(reason),
    });
    expect(replica.state().fault).toEqual({ mode: 'slow', factor: 2 });
  },
);

test('bad JSON for a fault, and an unknown page of ours, are refused', async () => {
  const replica = await quickReplica();
  expect((await post(replica, '/sim/faults', '{')).status).toBe(400);
  expect((await fetch(`${replica.url}/sim/nothing`)).status).toBe(404);
});
