/** The official OpenAI client works unmodified: every call that Sluice serves, at replicas of each kind. */
import OpenAI, { BadRequestError, NotFoundError } from 'openai';
import type { ChatCompletionChunk, ChatCompletionTool } from 'openai/resources/chat/completions';
import { describe, expect, test } from 'vitest';
import {
  arrived,
  gathered,
  noting,
  type ReplicaKind,
  refused,
  sharedWorld,
  worldOf,
} from './world.ts';

const model = 'mistral';
const messages = [{ role: 'user' as const, content: 'Why is the sky blue?' }];
const tools: ChatCompletionTool[] = [
  {
    type: 'function',
    function: {
      name: 'weather',
      description: 'The weather of a city',
      parameters: { type: 'object', properties: { echo: { type: 'string' } } },
    },
  },
];
const usage = {
  prompt_tokens: expect.any(Number),
  completion_tokens: expect.any(Number),
  total_tokens: expect.any(Number),
};

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
      const baseURL = `${shared.world.url}/v1`;
      return new OpenAI({ baseURL, apiKey: 'x', fetch, maxRetries: 0 });
    },
  };
}

function textOf(chunks: readonly ChatCompletionChunk[], index = 0): string {
  const choices = chunks.flatMap((chunk) => chunk.choices).filter((one) => one.index === index);
  return choices.map(({ delta }) => delta.content ?? '').join('');
}

describe.each(['ollama', 'openai'] as const)('at a replica that speaks %s', (protocol) => {
  const shared = sharedClient({ protocol });

  test('a chat is the same whole and streamed, chunk after chunk', async () => {
    const { client } = shared;
    const whole = await client.chat.completions.create({ model, messages });
    expect(whole._request_id).toMatch(/-[0-9a-f]{16}$/);
    expect(whole).toMatchObject({ object: 'chat.completion', model, usage });
    const [choice] = whole.choices;
    expect(choice).toMatchObject({ index: 0, finish_reason: 'stop' });
    const chunks = await gathered(
      await client.chat.completions.create({ model, messages, stream: true }),
    );
    expect(chunks.length).toBeGreaterThan(10);
    expect(textOf(chunks)).toBe(choice?.message.content);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(chunks[0]?.choices[0]?.delta.role).toBe('assistant');
    const reasons = chunks.map((chunk) => chunk.choices[0]?.finish_reason);
    expect(reasons.at(-1)).toBe('stop');
    expect(reasons.slice(0, -1)).toEqual(chunks.slice(1).map(() => null));
  });

  test('the usage comes last in a stream that asks for it, and never in another one', async () => {
    const { client } = shared;
    const asked = { model, messages, max_tokens: 20, stream: true as const };
    const whole = await client.chat.completions.create({ ...asked, stream: false });
    for (const include_usage of [undefined, false]) {
      const options = include_usage === undefined ? {} : { stream_options: { include_usage } };
      const chunks = await gathered(await client.chat.completions.create({ ...asked, ...options }));
      expect(chunks.filter((chunk) => chunk.choices.length === 0)).toEqual([]);
      expect(chunks.filter((chunk) => chunk.usage)).toEqual([]);
      expect(textOf(chunks)).toBe(whole.choices[0]?.message.content);
    }
    const stream_options = { include_usage: true };
    const chunks = await gathered(
      await client.chat.completions.create({ ...asked, stream_options }),
    );
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: whole.usage });
    expect(chunks.slice(0, -1).filter((chunk) => chunk.usage)).toEqual([]);
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe('length');
  });

  test('the helper that gathers a stream gives what the whole answer is', async () => {
    const { client } = shared;
    const whole = await client.chat.completions.create({ model, messages });
    const runner = client.chat.completions.stream({ model, messages });
    const deltas: string[] = [];
    runner.on('content', (delta) => deltas.push(delta));
    const final = await runner.finalChatCompletion();
    expect(final.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
    expect(final.choices[0]?.finish_reason).toBe('stop');
    expect(deltas.join('')).toBe(whole.choices[0]?.message.content);
  });

  test('completions are the same whole and streamed', async () => {
    const { client } = shared;
    const asked = { model, prompt: 'Once upon a time', max_tokens: 30 };
    const whole = await client.completions.create(asked);
    expect(whole).toMatchObject({ object: 'text_completion', model, usage });
    const chunks = await gathered(await client.completions.create({ ...asked, stream: true }));
    expect(chunks.length).toBeGreaterThan(5);
    expect(chunks.map(({ choices }) => choices[0]?.text).join('')).toBe(whole.choices[0]?.text);
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('length');
  });

  test("embeddings are the same as numbers and in the client's own base64", async () => {
    const { client, world } = shared;
    const asked = { model, input: ['one', 'two'] };
    const floats = await client.embeddings.create({ ...asked, encoding_format: 'float' });
    expect(floats).toMatchObject({ object: 'list', model });
    expect(floats.data.map(({ index, object }) => [index, object])).toEqual([
      [0, 'embedding'],
      [1, 'embedding'],
    ]);
    const packed = await client.embeddings.create(asked);
    expect(JSON.parse(arrived(world))).toEqual({ ...asked, encoding_format: 'base64' });
    for (const [index, { embedding }] of packed.data.entries()) {
      expect(embedding).toHaveLength(256);
      expect([...embedding]).toEqual(floats.data[index]?.embedding.map(Math.fround));
    }
    const short = await client.embeddings.create({ model, input: 'one', dimensions: 8 });
    expect(short.data[0]?.embedding).toHaveLength(8);
  });

  test('a tool is called whole and streamed, and its answer is taken', async () => {
    const { client, world } = shared;
    const whole = await client.chat.completions.create({ model, messages, tools });
    const [choice] = whole.choices;
    expect(choice).toMatchObject({ finish_reason: 'tool_calls', message: { content: null } });
    const [call] = choice?.message.tool_calls ?? [];
    if (call?.type !== 'function') throw new Error('no function was called');
    expect(call.function.name).toBe('weather');
    expect(JSON.parse(call.function.arguments)).toEqual({ echo: expect.any(String) });

    const runner = client.chat.completions.stream({ model, messages, tools });
    const final = await runner.finalChatCompletion();
    expect(final.choices[0]?.finish_reason).toBe('tool_calls');
    expect(final.choices[0]?.message.tool_calls).toMatchObject([
      { id: expect.any(String), type: 'function', function: call.function },
    ]);

    const said = { role: 'tool' as const, tool_call_id: call.id, content: 'sunny' };
    const assistant = { role: 'assistant' as const, content: null, tool_calls: [call] };
    const after = await client.chat.completions.create({
      model,
      messages: [...messages, assistant, said],
      tools,
      tool_choice: 'none',
    });
    expect(after.choices[0]?.message.content).toEqual(expect.any(String));
    expect(JSON.parse(arrived(world)).messages).toEqual([...messages, assistant, said]);
  });

  test('the helper that runs tools runs them', async () => {
    const { client, world } = shared;
    const given: unknown[] = [];
    const runner = client.chat.completions.runTools({
      model,
      messages,
      tool_choice: { type: 'function', function: { name: 'weather' } },
      tools: [
        {
          type: 'function',
          function: {
            name: 'weather',
            description: 'The weather of a city',
            parameters: { type: 'object', properties: { echo: { type: 'string' } } },
            parse: JSON.parse,
            function: (input: unknown) => {
              given.push(input);
              return 'sunny';
            },
          },
        },
      ],
    });
    await runner.done();
    expect(given).toEqual([{ echo: expect.any(String) }]);
    expect(runner.messages.at(-1)).toMatchObject({ role: 'tool', content: 'sunny' });
    expect(JSON.parse(arrived(world)).tools).toEqual(tools);
  });

  test('several choices come, whole and streamed', async () => {
    const { client } = shared;
    const asked = { model, messages, n: 2, max_tokens: 12 };
    const { choices } = await client.chat.completions.create(asked);
    expect(choices.map(({ index }) => index)).toEqual([0, 1]);
    const chunks = await gathered(await client.chat.completions.create({ ...asked, stream: true }));
    for (const { index, message } of choices) expect(textOf(chunks, index)).toBe(message.content);
    const ends = chunks.flatMap((chunk) => chunk.choices).filter((one) => one.finish_reason);
    expect(ends.map(({ index, finish_reason }) => [index, finish_reason])).toEqual([
      [0, 'length'],
      [1, 'length'],
    ]);
  });

  test('a format is asked for and kept', async () => {
    const { client, world } = shared;
    const response_format = { type: 'json_object' as const };
    const asked = { model, messages, response_format };
    const { choices } = await client.chat.completions.create(asked);
    expect(JSON.parse(choices[0]?.message.content ?? '')).toEqual({ answer: expect.any(String) });
    expect(JSON.parse(arrived(world))).toEqual(asked);
    const schema = { type: 'object', properties: { answer: { type: 'string' } } };
    const json_schema = { name: 'answer', schema, strict: true };
    const strict = { ...asked, response_format: { type: 'json_schema' as const, json_schema } };
    await client.chat.completions.create(strict);
    expect(JSON.parse(arrived(world))).toEqual(strict);
  });

  test('whatever else is asked arrives byte for byte as the client sent it', async () => {
    const { client, world, sent } = shared;
    const odd = {
      model,
      messages: [{ role: 'user' as const, content: 'Größe: "\u2028\u0000\ud83d\ude00"\n' }],
      ...{ logprobs: true, top_logprobs: 2, stop: ['\n\n', 'END'], seed: 9007199254740991 },
      ...{ temperature: 1e-7, top_p: 0.30000000000000004, logit_bias: { '50256': -100 } },
      ...{ presence_penalty: -0.5, parallel_tool_calls: false, max_completion_tokens: 9 },
      // Not OpenAI's: vLLM's and anybody's.
      ...{ top_k: 40, guided_regex: '\\d+', zebra: { deep: [null, { a: 1e21 }] }, '': '' },
    };
    await client.chat.completions.create(odd);
    expect(sent.at(-1)?.body).toBe(JSON.stringify(odd));
    expect(arrived(world)).toBe(sent.at(-1)?.body);
    const asked = { ...odd, stream: true as const, stream_options: { include_usage: true } };
    await gathered(await client.chat.completions.create(asked));
    expect(arrived(world)).toBe(sent.at(-1)?.body);
    // Only the usage is added: the scheduler needs it.
    await gathered(await client.chat.completions.create({ ...odd, stream: true }));
    const as_sent = sent.at(-1)?.body.slice(0, -1);
    expect(arrived(world)).toBe(`${as_sent},"stream_options":{"include_usage":true}}`);
  });
});

test('models are listed and found, and an unknown one is not', async () => {
  const world = await worldOf({ protocol: 'ollama' });
  const client = new OpenAI({ baseURL: `${world.url}/v1`, apiKey: 'x', maxRetries: 0 });
  const listed = await gathered(client.models.list());
  const mistral = { id: 'mistral', object: 'model', created: expect.any(Number) };
  expect(listed).toMatchObject([mistral]);
  expect(await client.models.retrieve('mistral')).toEqual(listed[0]);
  const unknown = { code: 'unknown_model', param: 'model' };
  await refused(client.models.retrieve('gpt-4/o'), NotFoundError, unknown);
});

describe.each([
  { protocol: 'ray' },
  { protocol: 'ray', template: 'mistral-instruct' },
] satisfies ReplicaKind[])('at a replica that takes one text: %o', (kind) => {
  const shared = sharedClient(kind);

  test('a chat of one message is the same whole and streamed', async () => {
    const { client, world } = shared;
    const whole = await client.chat.completions.create({ model, messages });
    expect(whole.choices).toMatchObject([
      { index: 0, finish_reason: 'stop', message: { role: 'assistant' } },
    ]);
    const { path, query = '' } = world.simulator.state().log.at(-1) ?? {};
    expect(path).toBe('/infer');
    const text = 'Why is the sky blue?';
    expect([...new URLSearchParams(query)]).toEqual([
      ['text', kind.template ? `[INST] ${text} [/INST]` : text],
    ]);
    const chunks = await gathered(
      await client.chat.completions.create({ model, messages, stream: true }),
    );
    expect(textOf(chunks)).toBe(whole.choices[0]?.message.content);
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop');
    const gatheredUp = await client.chat.completions.stream({ model, messages }).finalContent();
    expect(gatheredUp).toBe(whole.choices[0]?.message.content);
  });

  test('a conversation needs a template', async () => {
    const { client, world } = shared;
    const talk = [
      { role: 'system' as const, content: 'Be brief.' },
      { role: 'user' as const, content: 'Hello' },
      { role: 'assistant' as const, content: 'Hi' },
      { role: 'user' as const, content: [{ type: 'text' as const, text: 'Why?' }] },
    ];
    const asked = client.chat.completions.create({ model, messages: talk });
    if (!kind.template) {
      return refused(asked, BadRequestError, { param: 'messages[0]' });
    }
    expect((await asked).choices[0]?.finish_reason).toBe('stop');
    const { query = '' } = world.simulator.state().log.at(-1) ?? {};
    const text = '[INST] Be brief.\n\nHello [/INST] Hi</s>[INST] Why? [/INST]';
    expect(new URLSearchParams(query).get('text')).toBe(text);
  });

  test('completions are the same whole and streamed, and as they are', async () => {
    const { client, world } = shared;
    const asked = { model, prompt: 'Once upon a time' };
    const whole = await client.completions.create(asked);
    const { query = '' } = world.simulator.state().log.at(-1) ?? {};
    expect(new URLSearchParams(query).get('text')).toBe('Once upon a time');
    const chunks = await gathered(await client.completions.create({ ...asked, stream: true }));
    expect(chunks.map(({ choices }) => choices[0]?.text).join('')).toBe(whole.choices[0]?.text);
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop');
  });

  test('what it has no words for is refused by its name, and does not run', async () => {
    const { client, world } = shared;
    const { started } = world.simulator.state();
    const names = (param: string, asked: Promise<unknown>) => {
      const message = expect.stringContaining(param);
      return refused(asked, BadRequestError, { param, code: 'invalid_request', message });
    };
    const fields: [string, object][] = [
      ['tools', { tools }],
      ['temperature', { temperature: 0.5 }],
      ['max_tokens', { max_tokens: 5 }],
      ['n', { n: 2 }],
      ['stop', { stop: 'END' }],
      ['seed', { seed: 0 }],
      ['response_format', { response_format: { type: 'json_object' } }],
      ['logprobs', { logprobs: true }],
      ['zebra', { zebra: 1 }],
    ];
    for (const [param, field] of fields) {
      await names(param, client.chat.completions.create({ model, messages, ...field }));
      const asked = { model, messages, stream: true as const, ...field };
      await names(param, client.chat.completions.create(asked));
    }
    const image_url = { url: 'data:image/png;base64,iVBORw0KGgo=' };
    const content = [{ type: 'image_url' as const, image_url }];
    const pictures = client.chat.completions.create({
      model,
      messages: [{ role: 'user', content }],
    });
    await names('messages[0].content[0]', pictures);
    await names('prompt', client.completions.create({ model, prompt: ['one', 'two'] }));
    await names('input', client.embeddings.create({ model, input: 'one' }));
    expect(world.simulator.state().started).toBe(started);
  });
});
