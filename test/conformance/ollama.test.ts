/** The official Ollama client works unmodified: every call that Sluice serves, at replicas of each kind. */
import { type ChatResponse, type GenerateResponse, Ollama, type Tool } from 'ollama';
import { describe, expect, test } from 'vitest';
import type { World } from '../gateway/world.ts';
import {
  arrived,
  broken,
  gathered,
  noting,
  type ReplicaKind,
  refused,
  sharedWorld,
  worldOf,
} from './world.ts';

const model = 'mistral';
const prompt = 'Why is the sky blue?';
const messages = [{ role: 'user', content: prompt }];
const chat = { model, messages };
const schema = { type: 'object', properties: { answer: { type: 'string' } } };
const tools: Tool[] = [
  {
    type: 'function',
    function: {
      name: 'weather',
      description: 'The weather of a city',
      parameters: { type: 'object', properties: { echo: { type: 'string' } } },
    },
  },
];
const called = [{ function: { name: 'weather', arguments: { echo: expect.any(String) } } }];
/** What the last part of an answer says, where the replica counts. */
const counts = {
  done: true,
  done_reason: 'stop',
  total_duration: expect.any(Number),
  prompt_eval_count: expect.any(Number),
  eval_count: expect.any(Number),
  eval_duration: expect.any(Number),
};

function said(parts: readonly ChatResponse[]): string {
  return parts.map(({ message }) => message.content).join('');
}

function written(parts: readonly GenerateResponse[]): string {
  return parts.map(({ response }) => response).join('');
}

function clientOf(world: World, fetching: typeof fetch = fetch): Ollama {
  return new Ollama({ host: world.url, fetch: fetching });
}

/** The error of an HTTP status, which the client does not export. */
function responseError(status_code: number, message: unknown): object {
  return { name: 'ResponseError', status_code, message };
}

/** A world for a group of tests, and the client in front of it. */
function sharedClient(kind: ReplicaKind) {
  const { fetch, sent } = noting();
  const shared = sharedWorld(kind);
  return {
    sent,
    get world() {
      return shared.world;
    },
    get client() {
      return clientOf(shared.world, fetch);
    },
  };
}

describe.each(['ollama', 'openai'] as const)('at a replica that speaks %s', (protocol) => {
  const shared = sharedClient({ protocol });

  test('a chat is the same whole and streamed, part after part', async () => {
    const { client } = shared;
    const whole = await client.chat(chat);
    expect(whole).toMatchObject({ ...counts, model, message: { role: 'assistant' } });
    expect(new Date(whole.created_at).getTime()).toBeGreaterThan(0);
    const parts = await gathered(await client.chat({ ...chat, stream: true }));
    expect(parts.length).toBeGreaterThan(10);
    expect(said(parts)).toBe(whole.message.content);
    expect(parts.at(-1)).toMatchObject({ ...counts, model, eval_count: whole.eval_count });
    expect(parts.slice(0, -1).filter(({ done }) => done)).toEqual([]);
  });

  test('generate is the same whole and streamed', async () => {
    const { client } = shared;
    const asked = { model, prompt, system: 'Be brief.' };
    const whole = await client.generate(asked);
    expect(whole).toMatchObject({ ...counts, model, response: expect.stringMatching(/\w/) });
    const parts = await gathered(await client.generate({ ...asked, stream: true }));
    expect(written(parts)).toBe(whole.response);
    expect(parts.at(-1)).toMatchObject({ ...counts, model, eval_count: whole.eval_count });
  });

  test('a limit ends an answer, and is told', async () => {
    const { client } = shared;
    const asked = { ...chat, options: { num_predict: 7 } };
    expect(await client.chat(asked)).toMatchObject({ done_reason: 'length', eval_count: 7 });
    const parts = await gathered(await client.chat({ ...asked, stream: true }));
    expect(parts.at(-1)).toMatchObject({ done: true, done_reason: 'length', eval_count: 7 });
  });

  test('a tool is called whole and streamed, and its answer is taken', async () => {
    const { client, world } = shared;
    const { message } = await client.chat({ ...chat, tools });
    expect(message.tool_calls).toEqual(called);
    const parts = await gathered(await client.chat({ ...chat, tools, stream: true }));
    expect(parts.flatMap((part) => part.message.tool_calls ?? [])).toEqual(message.tool_calls);
    expect(parts.at(-1)?.done).toBe(true);
    const answer = { role: 'tool', tool_name: 'weather', content: 'sunny' };
    const after = await client.chat({ model, messages: [...messages, message, answer] });
    expect(after.message.content).toMatch(/\w/);
    const { messages: came } = JSON.parse(arrived(world)) as { messages: object[] };
    expect(came.at(-1)).toMatchObject({ role: 'tool', content: 'sunny' });
  });

  test('a format is asked for and kept', async () => {
    const { client, world } = shared;
    const { message } = await client.chat({ ...chat, format: 'json' });
    expect(JSON.parse(message.content)).toEqual({ answer: expect.any(String) });
    const { response } = await client.generate({ model, prompt, format: 'json' });
    expect(JSON.parse(response ?? '')).toEqual({ answer: expect.any(String) });
    await client.chat({ ...chat, format: schema });
    const json_schema = { name: 'format', schema };
    const format = { response_format: { type: 'json_schema', json_schema } };
    const asked = protocol === 'ollama' ? { format: schema } : format;
    expect(JSON.parse(arrived(world))).toMatchObject(asked);
  });

  test('embeddings come as numbers, of one text and of several', async () => {
    const { client } = shared;
    const { embeddings, ...rest } = await client.embed({ model, input: ['one', 'two'] });
    expect(rest).toMatchObject({ model, prompt_eval_count: expect.any(Number) });
    expect(embeddings.map((vector) => vector.length)).toEqual([256, 256]);
    const one = await client.embed({ model, input: 'one', truncate: true, keep_alive: 60 });
    expect(one.embeddings).toEqual(embeddings.slice(0, 1));
    const { embedding } = await client.embeddings({ model, prompt: 'two' });
    expect(embedding).toEqual(embeddings[1]);
  });

  test('models are listed and shown, loaded or not', async () => {
    const { client } = shared;
    const { models } = await client.list();
    expect(models).toMatchObject([{ name: 'mistral', model: 'mistral', size: expect.any(Number) }]);
    const running = await client.ps();
    expect(running.models).toMatchObject([{ name: 'mistral', expires_at: expect.any(String) }]);
    for (const name of ['mistral', 'mistral:latest']) {
      const shown = await client.show({ model: name });
      expect(shown).toMatchObject({ details: { family: expect.any(String) } });
      expect(shown.capabilities).toContain('completion');
    }
    expect(await client.version()).toEqual({ version: expect.stringMatching(/^\d+\.\d+\.\d+/) });
  });
});

describe('at a replica that speaks ollama', () => {
  const shared = sharedClient({ protocol: 'ollama' });
  const odd = {
    ...{ keep_alive: '5m', think: false, format: schema, logprobs: true },
    options: { temperature: 1e-7, top_k: 40, seed: 42, stop: ['\n\n'], mirostat: 2, num_ctx: 4096 },
    ...{ zebra: { deep: [null, { a: 1e21 }] }, '': '' },
  };

  test('whatever is asked arrives byte for byte as the client sent it', async () => {
    const { client, world, sent } = shared;
    const content = 'Größe: "\u2028\u0000\ud83d\ude00"\n';
    const images = [new Uint8Array([0x89, 0x50, 0x4e, 0x47])];
    const asks: (() => Promise<unknown>)[] = [
      () => client.chat({ model, messages: [{ role: 'user', content, images }], ...odd }),
      async () => gathered(await client.chat({ ...chat, stream: true, ...odd })),
      () => client.generate({ model, prompt: content, suffix: 'x', raw: true, ...odd }),
      async () => gathered(await client.generate({ model, prompt, stream: true, ...odd })),
      () => client.embed({ model: 'mistral:latest', input: ['a'], dimensions: 8, ...odd }),
      () => client.embeddings({ model, prompt, ...odd }),
    ];
    for (const ask of asks) {
      await ask();
      expect(sent.at(-1)?.body).toContain('"zebra":{"deep":[null,{"a":1e+21}]}');
      expect(arrived(world)).toBe(sent.at(-1)?.body);
    }
  });
});

describe('at a replica that speaks openai', () => {
  const shared = sharedClient({ protocol: 'openai' });

  test('options and messages are put into its words', async () => {
    const { client, world } = shared;
    const images = ['iVBORw0KGgo='];
    const options = { temperature: 0.5, seed: 42, num_predict: 9, stop: ['END'], num_ctx: 4096 };
    const penalties = { repeat_penalty: 1.1, presence_penalty: 0.2 };
    const asked = { keep_alive: '5m', options: { ...options, ...penalties } };
    await client.chat({ model, messages: [{ role: 'user', content: 'See', images }], ...asked });
    const url = 'data:image/png;base64,iVBORw0KGgo=';
    expect(JSON.parse(arrived(world))).toEqual({
      model,
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'See' },
            { type: 'image_url', image_url: { url } },
          ],
        },
      ],
      ...{ temperature: 0.5, seed: 42, max_tokens: 9, stop: ['END'] },
      ...{ repetition_penalty: 1.1, presence_penalty: 0.2 },
    });
  });

  test('what it has no words for is refused by its name, and does not run', async () => {
    const { client, world } = shared;
    const { started } = world.simulator.state();
    const asks: [param: string, ask: () => Promise<unknown>][] = [
      ['options.mirostat', () => client.chat({ ...chat, options: { mirostat: 2 } })],
      ['template', () => client.generate({ model, prompt, template: '{{ .Prompt }}' })],
      ['context', () => client.generate({ model, prompt, context: [1, 2] })],
    ];
    for (const [param, ask] of asks) {
      await refused(ask(), Error, responseError(400, expect.stringContaining(param)));
    }
    expect(world.simulator.state().started).toBe(started);
  });
});

describe.each([
  { protocol: 'ray' },
  { protocol: 'ray', template: 'mistral-instruct' },
] satisfies ReplicaKind[])('at a replica that takes one text: %o', (kind) => {
  const shared = sharedClient(kind);

  test('chat and generate are the same whole and streamed', async () => {
    const { client, world } = shared;
    const whole = await client.chat(chat);
    expect(whole).toMatchObject({ model, done: true, done_reason: 'stop' });
    const { query = '' } = world.simulator.state().log.at(-1) ?? {};
    const text = kind.template ? `[INST] ${prompt} [/INST]` : prompt;
    expect([...new URLSearchParams(query)]).toEqual([['text', text]]);
    expect(said(await gathered(await client.chat({ ...chat, stream: true })))).toBe(
      whole.message.content,
    );
    const { response } = await client.generate({ model, prompt });
    expect(response).toBe(whole.message.content);
    expect(written(await gathered(await client.generate({ model, prompt, stream: true })))).toBe(
      response,
    );
  });

  test('what it has no words for is refused by its name, and does not run', async () => {
    const { client, world } = shared;
    const { started } = world.simulator.state();
    const asks: [param: string, ask: () => Promise<unknown>][] = [
      ['tools', () => client.chat({ ...chat, tools })],
      ['format', () => client.chat({ ...chat, format: 'json', stream: true })],
      [
        'options.temperature',
        () => client.generate({ model, prompt, options: { temperature: 0 } }),
      ],
      ['images', () => client.generate({ model, prompt, images: ['iVBORw0KGgo='] })],
      ['input', () => client.embed({ model, input: 'one' })],
    ];
    for (const [param, ask] of asks) {
      await refused(ask(), Error, responseError(400, expect.stringContaining(param)));
    }
    expect(world.simulator.state().started).toBe(started);
  });
});

test('an unknown model and what Sluice does not serve are ResponseErrors', async () => {
  const world = await worldOf({ protocol: 'ollama' });
  const client = clientOf(world);
  const unknown = responseError(404, expect.stringContaining('model llama3 is not served'));
  for (const ask of [
    () => client.chat({ ...chat, model: 'llama3' }),
    () => client.chat({ ...chat, model: 'llama3', stream: true }),
    () => client.generate({ model: 'llama3', prompt }),
    () => client.embed({ model: 'llama3', input: 'one' }),
    () => client.show({ model: 'llama3' }),
  ]) {
    await refused(Promise.resolve(ask()), Error, unknown);
  }
  const nothing = responseError(404, 'there is nothing at /api/pull');
  await refused(client.pull({ model }), Error, nothing);
  await refused(
    client.chat({ model, messages: [] }),
    Error,
    responseError(400, expect.stringMatching(/messages/)),
  );
  expect(world.simulator.state().started).toBe(0);
});

test('a replica that fails before its first part is a ResponseError', async () => {
  const world = await worldOf({ protocol: 'ollama' });
  await world.simulator.setFault({ mode: 'error' });
  const failed = responseError(502, 'the replica answered 500');
  await refused(clientOf(world).chat(chat), Error, failed);
  await refused(clientOf(world).chat({ ...chat, stream: true }), Error, failed);
});

test.each(['cut', 'stall', 'malformed', 'stream_error'] as const)(
  'a stream that breaks throws, after the parts that came: %s',
  async (mode) => {
    const config = { timeouts: { stream_idle_ms: 300 } };
    const world = await worldOf({ protocol: 'ollama' }, { config });
    const client = clientOf(world);
    const whole = await client.chat(chat);
    await world.simulator.setFault({ mode, after_tokens: 40 });
    const { came, error } = await broken(await client.chat({ ...chat, stream: true }));
    expect(error).toMatchObject({ message: expect.stringMatching(/^the replica failed: /) });
    expect(said(came)).not.toBe('');
    expect(whole.message.content.startsWith(said(came))).toBe(true);
    expect(came.filter(({ done }) => done)).toEqual([]);
    await world.idle();
  },
);

test('what keeps a waiting stream open is not seen by the client', async () => {
  const config = { timeouts: { keep_alive_ms: 20 } };
  const world = await worldOf({ protocol: 'ollama' }, { config, max: 1 });
  const whole = await clientOf(world).chat(chat);
  await world.simulator.setFault({ mode: 'stall', count: 1 });
  const first = await clientOf(world).chat({ ...chat, stream: true });
  // Its status has come, so it hears that it waits.
  const waiting = await clientOf(world).chat({ ...chat, stream: true });
  expect((await world.view()).waiting).toBe(1);
  first.abort();
  expect(said(await gathered(waiting))).toBe(whole.message.content);
  await world.idle();
});

describe('a client that aborts ends its prompts at the replica and frees their slots', () => {
  test.each(['the client', 'the stream'])('by %s', async (which) => {
    const world = await worldOf({ protocol: 'ollama' }, { max: 1 });
    await world.simulator.setFault({ mode: 'stall', after_tokens: 4, count: 1 });
    const client = clientOf(world);
    const stream = await client.chat({ ...chat, stream: true });
    const reading = broken(
      (async function* () {
        for await (const part of stream) {
          yield part;
          if (which === 'the client') client.abort();
          else stream.abort();
        }
      })(),
    );
    const { came, error } = await reading;
    expect(came).toHaveLength(1);
    expect(error).toMatchObject({ name: 'AbortError' });
    await world.simulator.until(({ aborted }) => aborted === 1);
    expect((await client.chat(chat)).done).toBe(true);
    await world.idle();
    expect(world.simulator.state()).toMatchObject({ started: 2, completed: 1, in_flight_max: 1 });
  });
});
