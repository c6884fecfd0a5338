/** `sluice dead-letters ...`: prompts that failed on too many replicas, run again or let go. */
import { expect, test } from 'vitest';
import { fakeGateway, refused } from '../client/fake-gateway.ts';
import { eventually, newWorld, type World } from '../gateway/world.ts';
import { type RunOptions, sluice } from './sluice.ts';

const letters = (url: string, args: readonly string[], options: RunOptions = {}) =>
  sluice(['dead-letters', ...args], { url, ...options });

/** A prompt that fails at its replica as often as it may. Returns its id. */
async function poison(world: World, prompt: string): Promise<string> {
  await world.simulator.setFault({ mode: 'error', count: 3 });
  const labels = { 'Sluice-Labels': 'user_id=ann,team=red' };
  const body = { prompt, stream: false };
  const answer = await world.post('/api/generate', body, { headers: labels });
  expect(answer.status).toBe(502);
  return answer.headers.get('sluice-request-id') ?? '';
}

const jobOf = async (world: World, id: string) =>
  (await (await world.get(`/v1/jobs/${id}`)).json()) as { state: string; response?: unknown };

test('where there are none it says so', async () => {
  const world = await newWorld({ worker: false });
  const none = { code: 0, out: 'there are no dead letters\n', err: '' };
  expect(await letters(world.url, [])).toEqual(none);
  expect(await letters(world.url, ['replay', '--all'])).toEqual(none);
  expect(await letters(world.url, ['purge', '--all'])).toMatchObject({ out: '0 are purged\n' });
  const asJson = await letters(world.url, ['--json']);
  expect(JSON.parse(asJson.out)).toEqual({ letters: [], total: 0 });
  expect(await letters(world.url, ['show', 'main-none'])).toEqual({
    code: 1,
    out: '',
    err: 'sluice: there is no such dead letter (not_found)\n',
  });
});

test('they are listed, the newest first, and each is shown with its story', async () => {
  const world = await newWorld();
  const { domain } = world.config;
  const first = await poison(world, 'Why is the sky green?');
  const second = await poison(world, 'And why is that?');
  const { code, out, err } = await letters(world.url, []);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  const [head, ...rows] = out.trimEnd().split('\n');
  expect(head).toMatch(/^ID +DIED +CONTROL POINT +POOL +ATTEMPTS +CODE +BYTES$/);
  const row = (id: string) =>
    expect.stringMatching(
      new RegExp(`^${id} +\\ds ago +mistral-prompt +${domain} +3 +upstream_failed +\\d+$`),
    );
  expect(rows).toEqual([row(second), row(first), '', '2 in all']);
  // What people ask is shown only where it is asked for.
  expect(out).not.toContain('sky');
  const page = await letters(world.url, ['list', '--count', '1']);
  expect(page.out).toContain('\n2 in all; the next: --after 1\n');
  const asJson = await letters(world.url, ['--after', '1', '--json']);
  expect(JSON.parse(asJson.out)).toMatchObject({ letters: [{ id: first }], total: 2 });

  const shown = await letters(world.url, ['show', first]);
  expect(shown).toMatchObject({ code: 0, err: '' });
  const lines = shown.out.split('\n');
  expect(lines[0]).toBe(first);
  for (const [name, value] of [
    ['control point', 'mistral-prompt'],
    ['pool', domain],
    ['labels', '(user_id=ann, team=red|team=red, user_id=ann)'],
    ['died', '\\ds ago'],
    ['of', 'the replica answered 500 \\(upstream_failed\\)'],
  ]) {
    expect(shown.out).toMatch(new RegExp(`^  ${name} +${value}$`, 'm'));
  }
  expect(shown.out).toMatch(/^ATTEMPT +AT +REPLICA +WORKER +CODE +MESSAGE$/m);
  for (const attempt of [1, 2, 3]) {
    const told = `^ +${attempt} +\\+\\w+ +${domain}-1 +worker-\\w+ +upstream_failed +the replica answered 500$`;
    expect(shown.out).toMatch(new RegExp(told, 'm'));
  }
  expect(shown.out).toContain('asked of mistral at /api/generate:\n{\n');
  expect(shown.out).toContain('  "prompt": "Why is the sky green?"');
  const one = await letters(world.url, ['show', first, '--json']);
  const answer = await world.get(`/v1/dead-letters/${first}`);
  expect(JSON.parse(one.out)).toEqual(await answer.json());
});

test('what is replayed runs as a job; one that is not there stops no other', async () => {
  const world = await newWorld();
  const first = await poison(world, 'one');
  const second = await poison(world, 'two');
  const third = await poison(world, 'three');
  const { code, out, err } = await letters(world.url, ['replay', 'main-none', first]);
  expect({ code, err }).toEqual({
    code: 1,
    err: 'main-none: sluice: there is no such dead letter (not_found)\n',
  });
  const job = new RegExp(`^${first} runs again as job (\\S+)\n$`).exec(out)?.[1] ?? '';
  await eventually(async () => (await jobOf(world, job)).state === 'done');
  const all = await letters(world.url, ['replay', '--all', '--json']);
  expect(all).toMatchObject({ code: 0, err: '' });
  expect(JSON.parse(all.out)).toEqual({
    replayed: [second, third].map((dead_letter) => ({
      dead_letter,
      id: expect.any(String),
      state: expect.any(String),
    })),
    refused: [],
  });
  expect((await letters(world.url, [])).out).toBe('there are no dead letters\n');
  await world.idle();
});

test('purge takes those that are named, or all: never by saying nothing', async () => {
  const world = await newWorld();
  const first = await poison(world, 'one');
  await poison(world, 'two');
  await poison(world, 'three');
  for (const args of [
    ['purge'],
    ['replay'],
    ['purge', first, '--all'],
    ['replay', first, '--all'],
  ]) {
    expect(await letters(world.url, args)).toEqual({
      code: 2,
      out: '',
      err: 'sluice: name dead letters by their ids, or all of them with --all (usage)\n',
    });
  }
  expect(await letters(world.url, ['prge', first])).toMatchObject({ code: 2, out: '' });
  const one = await letters(world.url, ['purge', first, 'main-none', '--json']);
  expect(one).toMatchObject({ code: 1, err: '' });
  expect(JSON.parse(one.out)).toMatchObject({
    purged: [{ id: first }],
    refused: [{ id: 'main-none', error: { code: 'not_found', status: 404 } }],
  });
  expect(await letters(world.url, ['purge', '--all'])).toEqual({
    code: 0,
    out: '2 are purged\n',
    err: '',
  });
  expect((await letters(world.url, [])).out).toBe('there are no dead letters\n');
});

test('replay --all reads every page before it begins, and goes on past one that is refused', async () => {
  const ids = ['e', 'd', 'c', 'b', 'a'];
  const gateway = await fakeGateway(({ what }) => {
    const after = /^GET .*after=(\d+)/.exec(what)?.[1];
    if (after !== undefined) {
      const page = ids.slice(Number(after), Number(after) + 2);
      return { status: 200, body: { letters: page.map((id) => ({ id })), total: ids.length } };
    }
    if (what.includes('/c/')) return refused(404, 'unknown_model');
    return { status: 202, body: { id: 'main-1', state: 'waiting' } };
  });
  const { code, out, err } = await letters(gateway.url, ['replay', '--all']);
  expect({ code, err }).toEqual({
    code: 1,
    err: 'c: sluice: it says unknown_model (unknown_model)\n',
  });
  expect(out.trimEnd().split('\n')).toEqual(
    ['a', 'b', 'd', 'e'].map((id) => `${id} runs again as job main-1`),
  );
  expect(gateway.whats()).toEqual([
    ...[0, 2, 4].map((after) => `GET /v1/dead-letters?after=${after}&count=200`),
    ...['a', 'b', 'c', 'd', 'e'].map((id) => `POST /v1/dead-letters/${id}/replay`),
  ]);
});

test('a gateway that is gone ends it, and what was done is told', async () => {
  const gateway = await fakeGateway(({ what }) => {
    if (what.includes('/b/')) return 'break';
    return { status: 202, body: { id: 'main-1', state: 'waiting', dead_letter: 'a' } };
  });
  const { code, out, err } = await letters(gateway.url, ['replay', 'a', 'b', 'c', '--json']);
  expect(code).toBe(2);
  expect(JSON.parse(out)).toMatchObject({ replayed: [{ dead_letter: 'a' }], refused: [] });
  expect(JSON.parse(err).error).toMatchObject({ code: 'unreachable' });
  expect(gateway.whats()).toHaveLength(2);
});

test('they are for admins alone', async () => {
  const api_keys = [{ key: 'key-of-a-user' }, { key: 'key-of-the-operator', admin: true }];
  const world = await newWorld({ worker: false, config: { api_keys } });
  for (const args of [[], ['show', 'x'], ['replay', '--all'], ['purge', '--all']]) {
    const env = { SLUICE_API_KEY: 'key-of-a-user' };
    expect(await letters(world.url, args, { env })).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringContaining('(forbidden)'),
    });
  }
  const env = { SLUICE_API_KEY: 'key-of-the-operator' };
  expect(await letters(world.url, [], { env })).toMatchObject({ code: 0, err: '' });
});
