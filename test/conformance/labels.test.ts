/** Who asks is taken from what the official clients can say: the body, then headers, then the API key. */
import { Ollama } from 'ollama';
import OpenAI from 'openai';
import { expect, test } from 'vitest';
import type { World } from '../gateway/world.ts';
import { worldOf } from './world.ts';

const messages = [{ role: 'user' as const, content: 'Why?' }];
const chat = { model: 'mistral', messages };
const metadata = { team: 'red', workload: 'paid', user_id: 'of-metadata' };
const apiKeys = [
  { key: 'open' },
  { key: 'bound', labels: { user_id: 'of-key', workload: 'free', priority: '3' } },
];

/** The labels and the queue of a prompt that is at the replica; then its client leaves. */
async function seen(
  world: World,
  ask: (signal: AbortSignal) => Promise<unknown>,
): Promise<{ labels: Readonly<Record<string, string>>; queue: string }> {
  const { started } = world.simulator.state();
  const controller = new AbortController();
  const answer = ask(controller.signal).catch((error: Error) => error.constructor.name);
  await world.simulator.until((counts) => counts.started > started);
  const id = world.simulator.state().log.at(-1)?.request_id ?? '';
  const { request } = await world.admission.inspectRequest(id);
  if (!request) throw new Error(`${id} is not there`);
  controller.abort();
  expect(await answer).toMatch(/^(APIUserAbortError|DOMException)$/);
  await world.idle();
  // Without what the gateway keeps of the caller for itself.
  const { '': _, ...labels } = request.labels;
  return { labels, queue: request.queue };
}

test("OpenAI's user and metadata are labels, over which headers and then the key win", async () => {
  const world = await worldOf({ protocol: 'ollama' }, { config: { api_keys: apiKeys } });
  await world.simulator.setFault({ mode: 'hang' });
  const baseURL = `${world.url}/v1`;
  const labelsOf = (key: string, fields: object, labels?: string) => {
    const defaultHeaders = labels === undefined ? {} : { 'Sluice-Labels': labels };
    const client = new OpenAI({ baseURL, apiKey: key, maxRetries: 0, defaultHeaders });
    return seen(world, (signal) =>
      client.chat.completions.create({ ...chat, ...fields }, { signal }),
    );
  };

  const user = await labelsOf('open', { user: 'of-body' });
  expect(user.labels).toEqual({ user_id: 'of-body' });
  expect(user.queue).toMatch(/^mistral\/default@1\/of-body\//);

  const safety = await labelsOf('open', { safety_identifier: 'of-safety', stream: true });
  expect(safety.labels).toEqual({ user_id: 'of-safety' });

  const pairs = await labelsOf('open', { metadata, store: true });
  expect(pairs.labels).toEqual(metadata);
  expect(pairs.queue).toMatch(/^mistral\/paid@1\/of-metadata\//);

  const both = await labelsOf('open', { user: 'of-body', metadata });
  expect(both.labels).toEqual({ ...metadata, user_id: 'of-body' });

  const header = await labelsOf(
    'open',
    { user: 'of-body', metadata },
    'user_id=of-header,team=blue',
  );
  expect(header.labels).toEqual({ user_id: 'of-header', team: 'blue', workload: 'paid' });
  expect(header.queue).toMatch(/^mistral\/paid@1\/of-header\//);

  const asked = { user: 'of-body', metadata: { ...metadata, priority: '9' } };
  const key = await labelsOf('bound', asked, 'user_id=of-header,workload=paid,priority=7');
  expect(key.labels).toMatchObject({ user_id: 'of-key', workload: 'free', team: 'red' });
  expect(key.queue).toMatch(/^mistral\/free@3\/of-key\//);
});

test('what can be no label is none, and the prompt is served', async () => {
  const world = await worldOf({ protocol: 'ollama' });
  const client = new OpenAI({ baseURL: `${world.url}/v1`, apiKey: 'x', maxRetries: 0 });
  const odd = { 'a name': 'spaced', team: 'red', long: 'x'.repeat(2_000) };
  const { choices } = await client.chat.completions.create({ ...chat, metadata: odd });
  expect(choices[0]?.finish_reason).toBe('stop');
  await world.simulator.setFault({ mode: 'hang' });
  const { labels } = await seen(world, (signal) =>
    client.chat.completions.create({ ...chat, user: '', metadata: odd }, { signal }),
  );
  expect(labels).toMatchObject({ team: 'red' });
  expect(labels).not.toHaveProperty('long');
});

test("an Ollama client's labels are its headers, and its key's win", async () => {
  const world = await worldOf({ protocol: 'ollama' }, { config: { api_keys: apiKeys } });
  await world.simulator.setFault({ mode: 'hang' });
  const labelsOf = (key: string) =>
    seen(world, (signal) => {
      const headers = {
        Authorization: `Bearer ${key}`,
        'Sluice-Labels': 'user_id=of-header,team=red',
      };
      const aborting: typeof fetch = (input, init) => fetch(input, { ...init, signal });
      return new Ollama({ host: world.url, headers, fetch: aborting }).chat(chat);
    });
  expect((await labelsOf('open')).labels).toEqual({ user_id: 'of-header', team: 'red' });
  const { labels, queue } = await labelsOf('bound');
  expect(labels).toMatchObject({ user_id: 'of-key', team: 'red' });
  expect(queue).toMatch(/^mistral\/free@3\/of-key\//);
});
