/** What goes over the wire, as curl shows it: streams, jobs that are followed, and HTTP's less used sides. */
import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import type { World } from '../gateway/world.ts';
import { arrived, sharedWorld } from './world.ts';

const run = promisify(execFile);
const shared = sharedWorld({ protocol: 'ollama' }, { simulator: { streamTokens: 2 } });

/** Without curl there is nothing to show: raw.test.ts speaks HTTP by itself. */
const hasNoCurl = (() => {
  try {
    return execFileSync('curl', ['--version']).length === 0;
  } catch {
    return true;
  }
})();

const chat = { model: 'mistral', messages: [{ role: 'user', content: 'Why?' }], max_tokens: 4 };
const streamed = JSON.stringify({ ...chat, stream: true });

/** What curl prints, heads included, with placeholders for what differs each time. */
async function curl(path: string, args: readonly string[] = [], input = ''): Promise<string[]> {
  const running = run('curl', ['-sNi', '--max-time', '20', ...args, `${shared.world.url}${path}`]);
  running.child.stdin?.end(input);
  return shapeOf((await running).stdout);
}

function shapeOf(text: string): string[] {
  return text
    .replaceAll('\r\n', '\n')
    .replaceAll(/^Date: .*$/gm, 'Date: <date>')
    .replaceAll(/^sluice-queue-ms: \d+$/gm, 'sluice-queue-ms: <ms>')
    .replaceAll(/t\d+-[a-z0-9]+-[0-9a-f]{16}/g, '<id>')
    .replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, '<uuid>')
    .replaceAll(/"created":\d+/g, '"created":<s>')
    .replaceAll(/"created_at":"[^"]+"/g, '"created_at":"<time>"')
    .replaceAll(/"(\w+_duration)":\d+/g, '"$1":<ns>')
    .split('\n');
}

/** The answer's head ends with the first empty line. */
function bodyOf(lines: readonly string[]): string[] {
  return lines.slice(lines.indexOf('') + 1);
}

const eventStream = [
  'HTTP/1.1 200 OK',
  'sluice-request-id: <id>',
  'x-request-id: <id>',
  'sluice-queue-ms: <ms>',
  'content-type: text/event-stream; charset=utf-8',
  'cache-control: no-cache',
  'x-accel-buffering: no',
  'Date: <date>',
];
const keptOpen = ['Connection: keep-alive', 'Keep-Alive: timeout=72'];

/** A chunk of a streamed chat. */
function chunk(delta: object, finish_reason: string | null): string {
  const choices = [{ index: 0, delta, logprobs: null, finish_reason }];
  const head = '{"id":"chatcmpl-<uuid>","object":"chat.completion.chunk","created":<s>';
  return `data: ${head},"model":"mistral","choices":${JSON.stringify(choices)}`;
}
const chunks = [
  chunk({ role: 'assistant', content: 'This quiet' }, null),
  chunk({ content: ' step becomes' }, null),
  chunk({}, 'length'),
];
/** What the scheduler's own question for the usage adds is nothing to the client. */
const withoutUsage = (line: string) => line.replace(/,"usage":null\}$/, '').replace(/\]\}$/, ']');

describe.skipIf(hasNoCurl)('with curl', () => {
  test('a streamed chat is server-sent events up to [DONE]', async () => {
    const lines = await curl('/v1/chat/completions', ['-d', streamed]);
    expect(lines.map(withoutUsage)).toEqual([
      ...[...eventStream, ...keptOpen, 'Transfer-Encoding: chunked', ''],
      ...chunks.flatMap((line) => [line, '']),
      ...['data: [DONE]', '', ''],
    ]);
  });

  test('a client of HTTP/1.0 gets the same without chunks, up to the end of the connection', async () => {
    const lines = await curl('/v1/chat/completions', ['-0', '-d', streamed]);
    expect(lines.map(withoutUsage)).toEqual([
      ...[...eventStream, 'Connection: close', ''],
      ...chunks.flatMap((line) => [line, '']),
      ...['data: [DONE]', '', ''],
    ]);
  });

  test("Ollama's stream is a JSON object a line", async () => {
    const asked = { model: 'mistral', prompt: 'Why?', options: { num_predict: 4 } };
    const lines = await curl('/api/generate', ['-d', JSON.stringify(asked)]);
    const head = '{"model":"mistral","created_at":"<time>"';
    expect(lines).toEqual([
      ...eventStream.slice(0, 4),
      'content-type: application/x-ndjson',
      ...[...eventStream.slice(5), ...keptOpen, 'Transfer-Encoding: chunked', ''],
      `${head},"response":"Every gentle","done":false}`,
      `${head},"response":" team gives","done":false}`,
      `${head},"response":"","done":true,"done_reason":"length","total_duration":<ns>,` +
        '"load_duration":<ns>,"prompt_eval_count":1,"prompt_eval_duration":<ns>,' +
        '"eval_count":4,"eval_duration":<ns>}',
      '',
    ]);
  });

  test('/infer answers a text with a text', async () => {
    const lines = await curl('/infer', ['-G', '--data-urlencode', 'text=Größe & "more"?']);
    expect(lines.slice(0, lines.indexOf(''))).toEqual([
      ...eventStream.slice(0, 4),
      'content-type: text/plain; charset=utf-8',
      expect.stringMatching(/^content-length: \d+$/),
      ...['Date: <date>', ...keptOpen],
    ]);
    const [text = '', ...more] = bodyOf(lines);
    expect(more).toEqual([]);
    expect(text).toMatch(/^[A-Z].*\.$/);
    expect(JSON.parse(arrived(shared.world))).toMatchObject({ prompt: 'Größe & "more"?' });
    expect(await curl('/infer')).toContainEqual(expect.stringMatching(/^HTTP\/1.1 400 /));
  });

  test('a job is followed, and goes on behind the event that its client has seen', async () => {
    const asked = { path: '/v1/chat/completions', body: { ...chat, stream: true } };
    const submitted = await run('curl', [
      '-s',
      '-d',
      JSON.stringify(asked),
      `${shared.world.url}/v1/jobs`,
    ]);
    expect(shapeOf(submitted.stdout)).toEqual([
      '{"id":"<id>","state":"admitted","control_point":"mistral-prompt","position":0,"estimated_start_ms":0}',
    ]);
    const { id } = JSON.parse(submitted.stdout) as { id: string };
    const path = `/v1/jobs/${id}/stream`;
    const behind = (event: string) => curl(path, ['-H', `Last-Event-ID: ${event}`]);
    const events = chunks.map((line, index) => [`id: 1-${index + 1}`, line, '']);
    const end = ['id: end', 'event: done', 'data: {"state":"done"}', '', ''];

    await shared.world.idle();
    const all = (await curl(path)).map(withoutUsage);
    expect(all).toEqual([
      ...[...eventStream.filter((line) => !/queue-ms|x-request-id/.test(line)), ...keptOpen],
      ...['Transfer-Encoding: chunked', '', ...events.flat(), ...end],
    ]);
    expect(bodyOf(await behind('1-1')).map(withoutUsage)).toEqual([
      ...events.slice(1).flat(),
      ...end,
    ]);
    expect(bodyOf(await behind('1-3'))).toEqual(end);
    expect(await behind('end')).toEqual([
      ...['HTTP/1.1 204 No Content', 'Date: <date>', ...keptOpen, '', ''],
    ]);
    const odd = await behind('what?');
    expect(odd[0]).toBe('HTTP/1.1 400 Bad Request');
    expect(JSON.parse(bodyOf(odd).join(''))).toMatchObject({ error: { param: 'Last-Event-ID' } });
  });

  test('a job that is followed while it runs tells each event once', async () => {
    const { world } = shared;
    await world.simulator.setFault({ mode: 'slow', factor: 50, count: 1 });
    const { started } = world.simulator.state();
    const asked = { path: '/api/generate', body: { prompt: 'Why?', stream: true } };
    const submitted = await world.post('/v1/jobs', asked);
    const { id } = (await submitted.json()) as { id: string };
    await world.simulator.until((counts) => counts.started > started);
    const lines = bodyOf(await curl(`/v1/jobs/${id}/stream`));
    const ids = lines.filter((line) => line.startsWith('id: '));
    expect(ids.length).toBeGreaterThan(50);
    const counted = Array.from({ length: ids.length - 1 }, (_, index) => `id: 1-${index + 1}`);
    expect(ids).toEqual([...counted, 'id: end']);
  });

  test('HEAD has the head of GET and no body; where there is no GET it is refused', async () => {
    const head = await curl('/v1/models', ['--head']);
    const got = await curl('/v1/models');
    expect(head).toEqual([...got.slice(0, got.indexOf('')), '', '']);
    expect(head).toContainEqual(expect.stringMatching(/^content-length: \d+$/));
    const refused = await curl('/v1/chat/completions', ['--head']);
    expect(refused.slice(0, 2)).toEqual(['HTTP/1.1 405 Method Not Allowed', 'allow: POST']);
  });

  test('a large body waits for 100 Continue, and arrives', async () => {
    const prompt = 'Größe '.repeat(100_000);
    const asked = { model: 'mistral', prompt, stream: false, options: { num_predict: 2 } };
    const args = ['-H', 'Expect: 100-continue', '--data-binary', '@-'];
    const lines = await curl('/api/generate', args, JSON.stringify(asked));
    expect(lines.slice(0, 3)).toEqual(['HTTP/1.1 100 Continue', '', 'HTTP/1.1 200 OK']);
    expect(arrived(shared.world)).toBe(JSON.stringify(asked).slice(0, 65_536));
    expect(lines.at(-1)).toContain('"eval_count":2');
  });

  test('one that is too large is refused in words', async () => {
    const args = ['-H', 'Expect: 100-continue', '--data-binary', '@-'];
    const lines = await curl('/v1/completions', args, 'x'.repeat(3_000_000));
    expect(lines).toContain('HTTP/1.1 413 Payload Too Large');
    expect(lines.at(-1)).toContain('"code":"payload_too_large"');
  });

  test('a body in chunks arrives as one', async () => {
    const asked = JSON.stringify({ model: 'mistral', prompt: 'Größe '.repeat(9_000) });
    const args = ['-H', 'Transfer-Encoding: chunked', '--data-binary', '@-'];
    const lines = await curl('/api/generate', args, asked);
    expect(lines[0]).toBe('HTTP/1.1 200 OK');
    expect(arrived(shared.world)).toBe(asked.slice(0, 65_536));
  });

  test('errors have the shape of the path, and say when to come back', async () => {
    const unknown = await curl('/v1/nothing');
    expect(JSON.parse(bodyOf(unknown).join(''))).toEqual({
      error: {
        message: 'there is nothing at /v1/nothing',
        ...{ type: 'invalid_request_error', param: null, code: 'not_found' },
      },
    });
    expect(bodyOf(await curl('/api/chat', ['-d', '{"model": "gpt"}']))).toEqual([
      '{"error":"messages must be a list with at least one message","code":"invalid_request"}',
    ]);
    const { world } = shared;
    const leave = await fill(world);
    const args = ['-H', 'Sluice-Timeout-Ms: 50', '-d', streamed];
    const late = await curl('/v1/chat/completions', args);
    expect(late[0]).toBe('HTTP/1.1 504 Gateway Timeout');
    expect(late.slice(0, late.indexOf(''))).toEqual(
      expect.arrayContaining(['retry-after: 1', 'retry-after-ms: 1000', 'sluice-request-id: <id>']),
    );
    await leave();
  });
});

/** Takes all slots until the test gives them back. */
async function fill(world: World): Promise<() => Promise<void>> {
  await world.simulator.setFault({ mode: 'hang', count: 4 });
  const { started } = world.simulator.state();
  const controller = new AbortController();
  const { signal } = controller;
  const asked = () =>
    world.post('/v1/completions', { prompt: 'a' }, { signal }).catch(() => 'gone');
  const answers = Promise.all([asked(), asked(), asked(), asked()]);
  await world.simulator.until((counts) => counts.started === started + 4);
  return async () => {
    controller.abort();
    await answers;
  };
}
