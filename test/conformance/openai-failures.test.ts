/** What goes wrong reaches the official OpenAI client as its own errors, retries and aborts. */
import OpenAI, {
  APIConnectionTimeoutError,
  APIError,
  APIUserAbortError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
  RateLimitError,
} from 'openai';
import type { ChatCompletionChunk } from 'openai/resources/chat/completions';
import { describe, expect, test } from 'vitest';
import { rateValues, slotValues } from '../gateway/policies.ts';
import type { World } from '../gateway/world.ts';
import { broken, gathered, noting, refused, sharedWorld, worldOf } from './world.ts';

const model = 'mistral';
const messages = [{ role: 'user' as const, content: 'Why is the sky blue?' }];
const chat = { model, messages };
const streamed = { ...chat, stream: true as const };

type ClientOptions = ConstructorParameters<typeof OpenAI>[0];

function clientOf(world: World, options: ClientOptions = {}): OpenAI {
  return new OpenAI({ baseURL: `${world.url}/v1`, apiKey: 'x', maxRetries: 0, ...options });
}

/** A prompt that holds a slot until the test lets it go. */
async function hang(world: World): Promise<() => Promise<void>> {
  await world.simulator.setFault({ mode: 'hang', count: 1 });
  const { started } = world.simulator.state();
  const controller = new AbortController();
  const { signal } = controller;
  const answer = world.post('/v1/chat/completions', chat, { signal }).catch(() => undefined);
  await world.simulator.until((counts) => counts.started > started);
  return async () => {
    controller.abort();
    await answer;
  };
}

function textOf(chunks: readonly ChatCompletionChunk[]): string {
  return chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
}

async function wholeText(client: OpenAI): Promise<string> {
  const { choices } = await client.chat.completions.create(chat);
  return choices[0]?.message.content ?? '';
}

test('refusals are the errors that the client has for them', async () => {
  const world = await worldOf({ protocol: 'ollama' });
  const client = clientOf(world);
  const create = (fields: object) => client.chat.completions.create({ ...chat, ...fields });
  const type = 'invalid_request_error';
  const invalid = { status: 400, code: 'invalid_request', type };
  const unknown = { status: 404, code: 'unknown_model', param: 'model', type };
  for (const stream of [false, true]) {
    const messages = { ...invalid, param: 'messages' };
    await refused(create({ messages: [], stream }), BadRequestError, messages);
    // The replica's own.
    await refused(create({ n: 5, stream }), BadRequestError, { ...invalid, param: 'n' });
    await refused(create({ model: 'gpt-4o', stream }), NotFoundError, unknown);
  }
  const responses = client.responses.create({ model, input: 'Why?' });
  await refused(responses, NotFoundError, { status: 404, code: 'not_found', type });
  await world.idle();
  expect(world.simulator.state().started).toBe(0);
});

test('a body that is too large is refused, and the client hears why', async () => {
  const world = await worldOf({ protocol: 'ollama' }, { config: { limits: { body_bytes: 4096 } } });
  const content = 'x'.repeat(5_000_000);
  const asked = clientOf(world).chat.completions.create({
    model,
    messages: [{ role: 'user', content }],
  });
  await refused(asked, APIError, { status: 413, code: 'payload_too_large' });
});

test('a wrong key is an AuthenticationError, and the right one may call', async () => {
  const world = await worldOf({ protocol: 'ollama' }, { config: { api_keys: [{ key: 'right' }] } });
  const wrong = { status: 401, code: 'unauthorized', type: 'invalid_request_error' };
  const client = clientOf(world, { apiKey: 'wrong' });
  await refused(client.chat.completions.create(chat), AuthenticationError, wrong);
  await refused(client.chat.completions.create(streamed), AuthenticationError, wrong);
  await refused(client.models.list(), AuthenticationError, wrong);
  expect(await wholeText(clientOf(world, { apiKey: 'right' }))).not.toBe('');
});

test('a replica that fails is an InternalServerError, streamed or not', async () => {
  const world = await worldOf({ protocol: 'ollama' });
  await world.simulator.setFault({ mode: 'error' });
  const failed = { status: 502, code: 'upstream_failed', type: 'server_error' };
  for (const asked of [chat, streamed]) {
    await refused(clientOf(world).chat.completions.create(asked), InternalServerError, failed);
  }
  await world.idle();
});

describe('the client tries again by itself', () => {
  test.each([429, 503])('when a rate limit says so with %i', async (status) => {
    const request = { denied_response_status_code: status };
    const rate = rateValues({ capacity: 1, fill: 1, interval: '300ms', request });
    const policies = [slotValues({ max: 4 }), rate];
    const world = await worldOf({ protocol: 'ollama' }, { config: { policies } });
    const { fetch, sent } = noting();
    const client = clientOf(world, { fetch, maxRetries: 5 });
    const both = await Promise.all([wholeText(client), wholeText(client)]);
    expect(both[0]).toBe(both[1]);
    // The time it is told is the right one: once is enough.
    expect(sent.map((one) => one.status).toSorted()).toEqual([200, 200, status]);
    await world.idle();
  });

  test('a rate limit that it does not wait for is a RateLimitError', async () => {
    const rate = rateValues({ capacity: 1, fill: 1, interval: '1h' });
    const policies = [slotValues({ max: 4 }), rate];
    const world = await worldOf({ protocol: 'ollama' }, { config: { policies } });
    const client = clientOf(world);
    await client.chat.completions.create(chat);
    const retry = (headers: Headers) => /^\d{4}$/.test(headers.get('retry-after') ?? '');
    const headers = expect.toSatisfy(retry);
    const limited = { status: 429, code: 'rate_limited', type: 'invalid_request_error', headers };
    for (const asked of [chat, streamed]) {
      await refused(client.chat.completions.create(asked), RateLimitError, limited);
    }
  });

  test('when nobody may wait, until there is room', async () => {
    const policies = [slotValues({ max: 1, scheduler: { max_queue_length: 0 } })];
    const world = await worldOf({ protocol: 'ollama' }, { config: { policies } });
    const whole = await wholeText(clientOf(world));
    const leave = await hang(world);
    const { fetch, sent } = noting(async ({ status }) => {
      if (status !== 429) return;
      await leave();
      await world.idle();
    });
    const client = clientOf(world, { fetch, maxRetries: 1 });
    const chunks = await gathered(await client.chat.completions.create(streamed));
    expect(textOf(chunks)).toBe(whole);
    expect(sent.map(({ status }) => status)).toEqual([429, 200]);
  });

  test('when all replicas failed it, before the first token', async () => {
    const world = await worldOf({ protocol: 'ollama' });
    await world.simulator.setFault({ mode: 'error', count: 3 });
    const { fetch, sent } = noting();
    const client = clientOf(world, { fetch, maxRetries: 1 });
    const chunks = await gathered(await client.chat.completions.create(streamed));
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop');
    expect(sent.map(({ status }) => status)).toEqual([502, 200]);
  });

  test('when it was left without an answer for too long, and the first try is ended', async () => {
    const world = await worldOf({ protocol: 'ollama' }, { max: 1 });
    await world.simulator.setFault({ mode: 'hang', count: 1 });
    const { fetch, sent } = noting();
    const client = clientOf(world, { fetch, maxRetries: 1, timeout: 1_000 });
    expect(await wholeText(client)).not.toBe('');
    expect(sent.map(({ status }) => status)).toEqual([0, 200]);
    await world.simulator.until(({ aborted, completed }) => aborted === 1 && completed === 1);
  });

  test('but not when it ran for as long as it may', async () => {
    const world = await worldOf(
      { protocol: 'ollama' },
      { config: { policies: [], timeouts: { max_inflight: '1200ms' } } },
    );
    await world.simulator.setFault({ mode: 'hang', count: 1 });
    const { fetch, sent } = noting();
    const client = clientOf(world, { fetch, maxRetries: 3 });
    await expect(client.chat.completions.create(chat)).rejects.toThrow(/max inflight/);
    expect(sent.map(({ status }) => status)).toEqual([504]);
  });

  test('but not when the request itself is wrong', async () => {
    const world = await worldOf({ protocol: 'ollama' });
    const { fetch, sent } = noting();
    const client = clientOf(world, { fetch, maxRetries: 3 });
    await expect(client.chat.completions.create({ ...chat, n: 5 })).rejects.toThrow(/n must be/);
    expect(sent.map(({ status }) => status)).toEqual([400]);
  });
});

describe('a client that leaves ends its prompt at the replica and frees its slot', () => {
  /** Reads the first chunk of a stream that then stalls, and leaves it in its own way. */
  type Leave = (
    stream: Awaited<ReturnType<typeof stalled>>['stream'],
    controller: AbortController,
  ) => Promise<void>;

  async function stalled(world: World) {
    await world.simulator.setFault({ mode: 'stall', after_tokens: 4, count: 1 });
    const controller = new AbortController();
    const { signal } = controller;
    const stream = await clientOf(world).chat.completions.create(streamed, { signal });
    return { stream, controller };
  }

  const ways: Record<string, Leave> = {
    'its AbortController': async (stream, controller) => {
      for await (const _ of stream) controller.abort();
    },
    'the controller of the stream': async (stream) => {
      for await (const _ of stream) stream.controller.abort();
    },
    'a break out of the loop': async (stream) => {
      for await (const _ of stream) break;
    },
    'a throw out of the loop': async (stream) => {
      const thrown = new Error('not what I want');
      const reading = async () => {
        for await (const _ of stream) throw thrown;
      };
      await expect(reading()).rejects.toBe(thrown);
    },
  };

  test.each(Object.entries(ways))('by %s', async (_, leave) => {
    const world = await worldOf({ protocol: 'ollama' }, { max: 1 });
    const { stream, controller } = await stalled(world);
    await leave(stream, controller);
    await world.simulator.until(({ aborted }) => aborted === 1);
    expect(await wholeText(clientOf(world))).not.toBe('');
    await world.idle();
    expect(world.simulator.state()).toMatchObject({ started: 2, completed: 1, in_flight_max: 1 });
  });

  test('by the abort of an answer in one piece', async () => {
    const world = await worldOf({ protocol: 'ollama' }, { max: 1 });
    await world.simulator.setFault({ mode: 'hang', count: 1 });
    const controller = new AbortController();
    const { signal } = controller;
    const answer = clientOf(world).chat.completions.create(chat, { signal });
    const left = refused(answer, APIUserAbortError, {});
    await world.simulator.until(({ started }) => started === 1);
    controller.abort();
    await left;
    await world.simulator.until(({ aborted }) => aborted === 1);
    await world.idle();
  });

  test('by its own timeout', async () => {
    const world = await worldOf({ protocol: 'ollama' }, { max: 1 });
    await world.simulator.setFault({ mode: 'hang' });
    const client = clientOf(world, { timeout: 300 });
    for (const asked of [chat, streamed]) {
      await refused(client.chat.completions.create(asked), APIConnectionTimeoutError, {});
    }
    await world.idle();
    await world.simulator.until(({ started, aborted }) => aborted === started);
  });

  test('or leaves the queue, if it waits there still', async () => {
    const world = await worldOf({ protocol: 'ollama' }, { max: 1 });
    const leave = await hang(world);
    const controller = new AbortController();
    const { signal } = controller;
    const waits = clientOf(world).chat.completions.create(streamed, { signal });
    const left = refused(waits, APIUserAbortError, {});
    await world.until(({ waiting }) => waiting === 1);
    controller.abort();
    await left;
    await world.until(({ waiting }) => waiting === 0);
    await leave();
    await world.idle();
    expect(world.simulator.state().started).toBe(1);
  });
});

describe('a stream that breaks throws, after the chunks that came', () => {
  const upstream = { status: undefined, code: 'upstream_failed', type: 'server_error' };

  test.each(['cut', 'stall', 'malformed', 'stream_error'] as const)('%s', async (mode) => {
    const config = { timeouts: { stream_idle_ms: 300 } };
    const world = await worldOf({ protocol: 'ollama' }, { config });
    const client = clientOf(world, { maxRetries: 2 });
    const whole = await wholeText(client);
    await world.simulator.setFault({ mode, after_tokens: 40 });
    const { came, error } = await broken(await client.chat.completions.create(streamed));
    expect(error).toBeInstanceOf(APIError);
    expect(error).toMatchObject(upstream);
    expect(textOf(came)).not.toBe('');
    expect(whole.startsWith(textOf(came))).toBe(true);
    expect(came.every(({ choices }) => choices[0]?.finish_reason === null)).toBe(true);
    await world.idle();
  });

  test('also out of the helper that gathers it', async () => {
    const world = await worldOf({ protocol: 'ollama' });
    await world.simulator.setFault({ mode: 'malformed', after_tokens: 40 });
    const runner = clientOf(world, { maxRetries: 2 }).chat.completions.stream(chat);
    await refused(runner.finalChatCompletion(), APIError, upstream);
    expect(world.simulator.state().started).toBe(1);
  });

  test.each(['cut', 'malformed', 'stream_error'] as const)(
    '%s: whatever the replica said before reaches the client',
    async (mode) => {
      // The tokens come one by one, and most of them wait to be written when it breaks.
      const config = { timeouts: { flush_ms: 5_000 } };
      const world = await worldOf({ protocol: 'ollama' }, { config, simulator: { speed: 100 } });
      const client = clientOf(world);
      const words = (await wholeText(client)).split(' ');
      await world.simulator.setFault({ mode, after_tokens: 40 });
      const { came } = await broken(await client.chat.completions.create(streamed));
      expect(textOf(came)).toBe(words.slice(0, 40).join(' '));
    },
  );

  test('one without a first token is an error of the request', async () => {
    const config = { attempts: 1, timeouts: { first_token_ms: 100 } };
    const world = await worldOf({ protocol: 'ollama' }, { config });
    await world.simulator.setFault({ mode: 'hang' });
    const answer = clientOf(world).chat.completions.create(streamed);
    await refused(answer, InternalServerError, { ...upstream, status: 502 });
    await world.simulator.until(({ aborted }) => aborted === 1);
  });
});

describe('a stream that waits is kept open with comments', () => {
  const config = { timeouts: { keep_alive_ms: 20 } };
  const shared = sharedWorld({ protocol: 'ollama' }, { config, max: 1 });

  /** Asks for a stream, and waits until its status and a comment have come while it waits. */
  async function waiting(world: World, fields: object = {}, headers: Record<string, string> = {}) {
    const { fetch, sent } = noting();
    const leave = await hang(world);
    const create = { ...streamed, ...fields };
    const stream = await clientOf(world, { fetch }).chat.completions.create(create, { headers });
    expect(sent[0]?.status).toBe(200);
    expect((await world.view()).waiting).toBe(1);
    return { stream, leave };
  }

  test('which the client does not see', async () => {
    const { world } = shared;
    const whole = await wholeText(clientOf(world));
    const { stream, leave } = await waiting(world);
    await leave();
    const chunks = await gathered(stream);
    expect(textOf(chunks)).toBe(whole);
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop');
  });

  test("a replica's refusal that comes later is an error of the stream", async () => {
    const { world } = shared;
    const { stream, leave } = await waiting(world, { n: 5 });
    await leave();
    const { came, error } = await broken(stream);
    expect(came).toEqual([]);
    expect(error).toBeInstanceOf(APIError);
    expect(error).toMatchObject({ code: 'invalid_request', param: 'n' });
  });

  test('so is the end of its time in the queue', async () => {
    const { world } = shared;
    const { stream, leave } = await waiting(world, {}, { 'Sluice-Timeout-Ms': '500' });
    const { came, error } = await broken(stream);
    expect(came).toEqual([]);
    expect(error).toBeInstanceOf(APIError);
    expect(error).toMatchObject({ code: 'queue_timeout', type: 'server_error' });
    await leave();
  });
});
