/** Prompts that failed everywhere: listed, read, run again, and thrown away. */
import { expect, test } from 'vitest';
import { expectRefusal } from './errors.ts';
import { eventually, newWorld, type World } from './world.ts';

interface Listed {
  readonly letters: readonly { id: string; labels: object; story: object[] }[];
  readonly total: number;
}

async function list(world: World, query = ''): Promise<Listed> {
  return (await (await world.get(`/v1/dead-letters${query}`)).json()) as Listed;
}

/** One that fails three times. */
async function fail(world: World, text: string, headers: Record<string, string> = {}) {
  await world.simulator.setFault({ mode: 'error', count: 3 });
  const response = await world.post('/api/generate', { prompt: text, stream: false }, { headers });
  expect(response.status).toBe(502);
  return response.headers.get('sluice-request-id') ?? '';
}

test('a dead letter says what was asked and what became of it, and runs again as a job', async () => {
  const world = await newWorld();
  const labels = 'user_id=u1,workload=paid';
  const id = await fail(world, 'a rose', { 'sluice-labels': labels, 'sluice-priority': '7' });
  const { letters, total } = await list(world);
  expect(total).toBe(1);
  const letter = {
    id,
    control_point: 'mistral-prompt',
    labels: { user_id: 'u1', workload: 'paid' },
    pool: world.config.domain,
    cost: expect.any(Number),
    attempt: 3,
    created_at: expect.any(Number),
    died_at: expect.any(Number),
    code: 'upstream_failed',
    message: 'the replica answered 500',
    bytes: expect.any(Number),
  };
  const attempt = (number: number) => ({
    attempt: number,
    replica: `${world.config.domain}-1`,
    worker: expect.any(String),
    at: expect.any(Number),
    code: 'upstream_failed',
    message: 'the replica answered 500',
    failed_there: true,
  });
  const story = [attempt(1), attempt(2), attempt(3)];
  expect(letters).toEqual([{ ...letter, story }]);
  expect(await (await world.get(`/v1/dead-letters/${id}`)).json()).toEqual({
    ...letter,
    story,
    request: {
      path: '/api/generate',
      model: 'mistral',
      stream: false,
      body: { prompt: 'a rose', stream: false },
    },
  });

  // Twice at once, as by two operators, or by one whose connection broke: it runs once.
  const replay = () => world.post(`/v1/dead-letters/${id}/replay`, '');
  const answers = await Promise.all([replay(), replay()]);
  const accepted = answers.filter(({ status }) => status === 202);
  expect(accepted.length).toBeGreaterThan(0);
  const jobs = await Promise.all(
    accepted.map(async (one) => ((await one.json()) as { id: string }).id),
  );
  expect(new Set(jobs).size).toBe(1);
  const job = async () =>
    (await (await world.get(`/v1/jobs/${jobs[0]}`)).json()) as { state: string; response?: object };
  await eventually(async () => (await job()).state === 'done');
  expect((await job()).response).toMatchObject({ status: 200 });
  expect(world.simulator.state().completed).toBe(1);
  expect((await list(world)).total).toBe(0);
  const gone = { status: 404, code: 'not_found' };
  await expectRefusal(await replay(), 'openai', gone);
  await expectRefusal(await world.get(`/v1/dead-letters/${id}`), 'openai', gone);
  await world.idle();
});

test('pages, single ones and all of them are thrown away', async () => {
  const world = await newWorld();
  const ids: string[] = [];
  for (const text of ['a', 'b', 'c']) ids.push(await fail(world, text));
  const newest = ids.toReversed();
  const page = async (query: string) => (await list(world, query)).letters.map(({ id }) => id);
  expect(await page('?count=2')).toEqual(newest.slice(0, 2));
  expect(await page('?after=2&count=2')).toEqual(newest.slice(2));
  for (const query of ['?count=0', '?count=x', '?after=-1', '?limit=1', '?count=1&count=2']) {
    const response = await world.get(`/v1/dead-letters${query}`);
    await expectRefusal(response, 'openai', { status: 400, code: 'invalid_request' });
  }
  const drop = await world.get(`/v1/dead-letters/${ids[1]}`, { method: 'DELETE' });
  expect(await drop.json()).toEqual({ id: ids[1] });
  const purged = await world.get('/v1/dead-letters', { method: 'DELETE' });
  expect(await purged.json()).toEqual({ purged: 2 });
  expect((await list(world)).total).toBe(0);
});

test('a replayed letter is still its key’s, and what the key sets still wins', async () => {
  const api_keys = [
    { key: 'user', labels: { user_id: 'bound' } },
    { key: 'op', admin: true },
  ];
  const world = await newWorld({ config: { api_keys } });
  const as = (key: string) => ({ headers: { Authorization: `Bearer ${key}` } });
  await world.simulator.setFault({ mode: 'error', count: 3 });
  const failed = await world.post('/api/generate', { prompt: 'a', stream: false }, as('user'));
  const id = failed.headers.get('sluice-request-id');
  const { letters } = (await (await world.get('/v1/dead-letters', as('op'))).json()) as Listed;
  expect(letters).toMatchObject([{ id, labels: { user_id: 'bound' } }]);
  const replayed = await world.post(`/v1/dead-letters/${id}/replay`, '', as('op'));
  const { id: job } = (await replayed.json()) as { id: string };
  expect((await world.get(`/v1/jobs/${job}`, as('user'))).status).toBe(200);
});

test('jobs: one that must not begin anew ends where its replica broke off', async () => {
  const world = await newWorld({ config: { timeouts: { flush: '1ms', replica_down: '10ms' } } });
  const submit = async (replay?: boolean) => {
    await world.simulator.setFault({ mode: 'cut', after_tokens: 3, count: 1 });
    const body = { prompt: 'a long story', stream: true };
    const job = await world.post('/v1/jobs', { path: '/api/generate', body, replay });
    expect(job.status).toBe(202);
    const { id } = (await job.json()) as { id: string };
    const view = async () =>
      (await (await world.get(`/v1/jobs/${id}`)).json()) as { state: string; error?: object };
    await eventually(
      async () => !['waiting', 'admitted', 'running'].includes((await view()).state),
    );
    return view();
  };
  expect(await submit(false)).toMatchObject({
    state: 'failed',
    error: { code: 'upstream_failed' },
  });
  expect(await submit(true)).toMatchObject({
    state: 'done',
    attempt: expect.toSatisfy((n) => n > 1),
  });
  expect(await submit()).toMatchObject({ state: 'done', attempt: expect.toSatisfy((n) => n > 1) });
  const wrong = await world.post('/v1/jobs', { path: '/api/generate', body: {}, replay: 'no' });
  await expectRefusal(wrong, 'openai', { status: 400, code: 'invalid_request' });
});
