/** Streams through a cluster whose processes are killed: every event reaches its client, once. */
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { answerTo } from '../../src/simulator/text.ts';
import { contentOf } from '../support/events.ts';
import { eventually, newCluster, type SluiceProcess } from './world.ts';

const answerTokens = { min: 120, max: 120 };
const timeouts = { heartbeat: '1s', member: '2s', flush: '20ms' };

function chat(content: string): object {
  return { stream: true, messages: [{ role: 'user', content }] };
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function expected(content: string): string {
  return digest(answerTo(`user: ${content}`, answerTokens).tokens.join(''));
}

function post(url: string, path: string, body: object): Promise<Response> {
  return fetch(url + path, { method: 'POST', body: JSON.stringify(body) });
}

/** Reads a stream until it ends, or breaks; says each time what has come. */
async function read(
  response: Response,
  onText: (text: string) => void = () => {},
): Promise<string> {
  let text = '';
  const decoder = new TextDecoder();
  try {
    for await (const bytes of response.body ?? []) {
      text += decoder.decode(bytes, { stream: true });
      onText(text);
    }
  } catch {
    // Its gateway was killed.
  }
  // What is cut off in the middle of an event is no event.
  return text.slice(0, text.lastIndexOf('\n\n') + 2);
}

async function job(gateway: SluiceProcess, content: string): Promise<string> {
  const body = { path: '/v1/chat/completions', body: chat(content) };
  const answer = await post(gateway.url, '/v1/jobs', body);
  return ((await answer.json()) as { id: string }).id;
}

test('a client whose gateway is killed goes on at another, and misses nothing', async () => {
  const simulator = { speed: 10, streamTokens: 1, answerTokens };
  const cluster = await newCluster({ maxConcurrency: 4, simulator, config: { timeouts } });
  const [first, second] = [await cluster.gateway('g1'), await cluster.gateway('g2')];
  await cluster.worker('w1');
  const id = await job(first, 'Why?');
  const path = `/v1/jobs/${id}/stream`;
  const begun = Promise.withResolvers<void>();
  const reading = read(await fetch(first.url + path), (text) => {
    if (contentOf(text).length > 20) begun.resolve();
  });
  await begun.promise;
  await first.kill('SIGKILL');
  const before = await reading;
  const after = [...before.matchAll(/^id: (.*)$/gm)].at(-1)?.[1] ?? '';
  expect(before).not.toContain('event: done');
  const headers = { 'Last-Event-ID': after };
  const rest = await read(await fetch(second.url + path, { headers }));
  expect(rest).toContain('event: done');
  expect(digest(contentOf(before) + contentOf(rest))).toBe(expected('Why?'));
  expect(cluster.simulator.state().started).toBe(1);
});

test('a worker that is killed in the middle: its jobs begin anew, its clients are told', async () => {
  const simulator = { speed: 5, streamTokens: 1, answerTokens };
  const cluster = await newCluster({ maxConcurrency: 4, simulator, config: { timeouts } });
  const gateway = await cluster.gateway('g1');
  const worker = await cluster.worker('w1');
  const id = await job(gateway, 'a job');
  const following = await fetch(`${gateway.url}/v1/jobs/${id}/stream`);
  const both = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const begun = (index: number) => (text: string) => {
    if (contentOf(text).length > 10) both[index]?.resolve();
  };
  const followed = read(following, begun(0));
  const live = post(gateway.url, '/v1/chat/completions', chat('a client')).then((response) =>
    read(response, begun(1)),
  );
  await Promise.all(both.map(({ promise }) => promise));
  await worker.kill('SIGKILL');
  await cluster.worker('w2');
  const told = await live;
  expect(told).toMatch(/^data: \{"error":\{.*"code":"upstream_failed"/m);
  expect(told).not.toContain('[DONE]');
  const job2 = await followed;
  expect(job2).toContain('event: restart');
  expect(digest(contentOf(job2.slice(job2.indexOf('event: restart'))))).toBe(expected('a job'));
  await eventually('no slot is left', async () => isEmpty(await cluster.inFlight()), 10_000);
});

test('200 streams at once over two gateways and two workers: every text is whole', async () => {
  const simulator = { speed: 2, stepPerRequestMs: 0, slots: 256, streamTokens: 1, answerTokens };
  const replica = { protocol: 'openai', max_inflight: 200 };
  const worker = { concurrency: { mistral: 100 } };
  const cluster = await newCluster({
    maxConcurrency: 200,
    simulator,
    replica,
    config: { timeouts, worker },
  });
  const gateways = [await cluster.gateway('g1'), await cluster.gateway('g2')];
  await Promise.all([cluster.worker('w1'), cluster.worker('w2')]);
  const texts = await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const url = gateways[index % 2]?.url ?? '';
      const response = await post(url, '/v1/chat/completions', chat(`prompt ${index}`));
      return read(response);
    }),
  );
  for (const [index, text] of texts.entries()) {
    expect(digest(contentOf(text)), `stream ${index}`).toBe(expected(`prompt ${index}`));
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
  }
  expect(cluster.simulator.state()).toMatchObject({ started: 200, completed: 200 });
  expect(cluster.simulator.state().running_max).toBeGreaterThan(150);
  await eventually('no slot is left', async () => isEmpty(await cluster.inFlight()), 10_000);
});

function isEmpty(slots: Record<string, string>): boolean {
  return Object.keys(slots).length === 0;
}
