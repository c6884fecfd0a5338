/** Queues that are full and rates that are used up: which limit it was, and when to come back. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { describe, expect, onTestFinished, test } from 'vitest';
import { expectRefusal, expectRetryAfter } from './errors.ts';
import { cancelJob, quotaValues, rateValues, slotValues, submitJob } from './policies.ts';
import { newWorld, type World } from './world.ts';

const generate = { prompt: 'Why?', options: { num_predict: 5 } };
const completion = { prompt: 'Why?', max_tokens: 5 };
const queueFull = { status: 429, code: 'queue_full' };
const rateLimited = { status: 429, code: 'rate_limited' };

/** A world in which prompts end only when they are cancelled. */
async function hangingWorld(config: object): Promise<World> {
  const world = await newWorld({ config });
  await world.simulator.setFault({ mode: 'hang' });
  return world;
}

const labelled = (labels: string) => ({ headers: { 'Sluice-Labels': labels } });

describe('a full queue', () => {
  test('the longest queue at a control point, whatever workload and whatever policy says it', async () => {
    const policies = [
      slotValues({ max: 1, scheduler: { max_queue_length: 3 } }),
      slotValues({ name: 'second', max: 5, scheduler: { max_queue_length: 2 } }),
    ];
    const world = await hangingWorld({ policies });
    const ids = [
      await submitJob(world),
      await submitJob(world, { workload: 'a' }),
      await submitJob(world, { workload: 'b' }),
    ];
    const refused = await world.post('/v1/completions', completion, labelled('workload=c'));
    const message = await expectRefusal(refused, 'openai', queueFull);
    expect(message).toContain('at mistral-prompt 2 requests wait already');
    expect(message).toContain('max_queue_length');
    // 2 s of service for who would be behind one other, at one slot: nothing was served yet.
    expect(expectRetryAfter(refused)).toBe(2_000);
    await expectRefusal(await world.post('/api/generate', generate), 'ollama', queueFull);
    // Elsewhere there is room.
    ids.push(await submitJob(world, {}, { controlPoint: 'elsewhere' }));
    expect(await (await world.get('/v1/queues/mistral-prompt')).json()).toMatchObject({
      waiting: 2,
      limits: [{ key: 'mistral', waiting: 2 }, { key: 'second' }],
    });
    for (const id of ids.toReversed()) await cancelJob(world, id);
    await world.idle();
  });

  test('the longest queue of a workload', async () => {
    const workloads = [
      {
        name: 'batch',
        label_matcher: { match_labels: { kind: 'batch' } },
        parameters: { max_queue_length: 1 },
      },
    ];
    const scheduler = { workload_label_key: 'none', workloads };
    const world = await hangingWorld({ policies: [slotValues({ max: 1, scheduler })] });
    const ids = [await submitJob(world), await submitJob(world, { kind: 'batch' })];
    const refused = await world.post('/v1/completions', completion, labelled('kind=batch'));
    const message = await expectRefusal(refused, 'openai', queueFull);
    expect(message).toContain('in its workload 1 requests wait already');
    expectRetryAfter(refused);
    ids.push(await submitJob(world));
    for (const id of ids.toReversed()) await cancelJob(world, id);
    await world.idle();
  });

  test('where nobody may wait, who can run at once runs', async () => {
    const policies = [slotValues({ max: 1, scheduler: { max_queue_length: 0 } })];
    const world = await hangingWorld({ policies });
    const id = await submitJob(world);
    const refused = await world.post('/v1/completions', completion);
    expect(await expectRefusal(refused, 'openai', queueFull)).toContain('nobody may wait');
    await cancelJob(world, id);
    await world.idle();
    const next = await submitJob(world);
    await cancelJob(world, next);
    await world.idle();
  });

  test("the domain's own limits, by their names", async () => {
    const limits = { waiting: 2, queued_bytes: 1024 * 1024 };
    const world = await hangingWorld({ policies: [slotValues({ max: 1 })], limits });
    const ids = [await submitJob(world), await submitJob(world)];
    // Each body by itself is small enough, and what runs is kept, too.
    const large = { path: '/v1/completions', body: { prompt: 'x'.repeat(1_048_450) } };
    const bytes = await world.post('/v1/jobs', large);
    expect(await expectRefusal(bytes, 'openai', queueFull)).toContain('limits.queued_bytes');
    ids.push(await submitJob(world));
    const count = await world.post('/v1/completions', completion);
    expect(await expectRefusal(count, 'openai', queueFull)).toContain('limits.waiting');
    for (const id of ids.toReversed()) await cancelJob(world, id);
    await world.idle();
  });
});

/** Redis' own clock, which decides, ms. */
function clockOf(world: World): () => Promise<number> {
  const redis = new Redis(world.redisUrl);
  onTestFinished(() => redis.disconnect());
  return async () => {
    const [seconds, micros] = await redis.time();
    return Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000);
  };
}

describe('a rate that is used up', () => {
  test('2 requests in 10 s: the third comes back when the next token is there, to the millisecond', async () => {
    const rate = rateValues({ capacity: 2, fill: 2, interval: '10s' });
    const world = await newWorld({ config: { policies: [rate] } });
    const now = clockOf(world);
    const before = await now();
    expect((await world.post('/v1/completions', completion)).status).toBe(200);
    const drawn = await now();
    expect((await world.post('/api/generate', generate)).status).toBe(200);
    const asked = await now();
    const refused = await world.post('/v1/completions', completion);
    const answered = await now();
    const message = await expectRefusal(refused, 'openai', rateLimited);
    expect(message).toContain('policy rate ');
    // A token in 5 s, counted from the first draw.
    const ms = expectRetryAfter(refused);
    expect(ms).toBeGreaterThanOrEqual(before + 5_000 - answered);
    expect(ms).toBeLessThanOrEqual(drawn + 5_000 - asked);
    const ollama = await world.post('/api/generate', generate);
    await expectRefusal(ollama, 'ollama', rateLimited);
    expect(expectRetryAfter(ollama)).toBeLessThanOrEqual(ms);
    const job = await world.post('/v1/jobs', { path: '/api/generate', body: generate });
    await expectRefusal(job, 'openai', rateLimited);
    await world.idle();
  });

  test('who comes back after exactly that time is let through', async () => {
    const rate = rateValues({ capacity: 1, fill: 1, interval: '1500ms', continuous: false });
    const world = await newWorld({ config: { policies: [rate] } });
    const job = { path: '/api/generate', body: generate };
    let refused: Response | undefined;
    // Again if the machine was so slow that the next token was there already.
    for (let round = 0; refused === undefined && round < 5; round++) {
      await world.post('/v1/jobs', job);
      const answer = await world.post('/v1/jobs', job);
      if (answer.status === 429) refused = answer;
    }
    const ms = refused && expectRetryAfter(refused);
    expect(ms).toBeLessThanOrEqual(1_500);
    await sleep((ms ?? 0) + 1);
    expect((await world.post('/v1/jobs', job)).status).toBe(202);
    await world.idle();
  });

  test('for each user, with its own status, and no user in a log or message', async () => {
    const secret = 'xyzzy';
    const rate = rateValues({
      name: 'per.user',
      capacity: 10,
      fill: 10,
      interval: '1h',
      label: 'user_id',
      request: { tokens_label_key: 'tokens', denied_response_status_code: 403 },
    });
    const world = await newWorld({ config: { policies: [rate] } });
    const user = (name: string, tokens: number) => labelled(`user_id=${name},tokens=${tokens}`);
    const post = (init: object) => world.post('/v1/completions', completion, init);
    expect((await post(user(secret, 7))).status).toBe(200);
    const refused = await post(user(secret, 4));
    const denied = { status: 403, code: 'rate_limited' };
    const message = await expectRefusal(refused, 'openai', denied);
    expect(message).toBe('the rate limit of policy per.user for its user_id is used up');
    // 1 token of 10 in 1 h is missing: 6 min, less what has come in since.
    const ms = expectRetryAfter(refused);
    expect(ms).toBeGreaterThan(300_000);
    expect(ms).toBeLessThanOrEqual(360_000);
    expect((await post(user(secret, 3))).status).toBe(200);
    expect((await post(user('another', 10))).status).toBe(200);
    expect((await post({})).status).toBe(200);
    const never = await post(user('third', 11));
    const refusal = { status: 400, code: 'invalid_request', param: 'tokens' };
    expect(await expectRefusal(never, 'openai', refusal)).toContain('policy per.user');
    expect(never.headers.get('retry-after')).toBeNull();
    expect(world.log()).toContain('per.user');
    expect(world.log()).not.toContain(secret);
    await world.idle();
  });

  test('a request that never ran has used nothing', async () => {
    const policies = [slotValues({ max: 1 }), rateValues({ capacity: 2, fill: 1, interval: '1h' })];
    const world = await hangingWorld({ policies });
    const running = await submitJob(world);
    await cancelJob(world, await submitJob(world));
    const again = await submitJob(world);
    const refused = await world.post('/v1/completions', completion);
    await expectRefusal(refused, 'openai', rateLimited);
    for (const id of [again, running]) await cancelJob(world, id);
    await world.idle();
  });
});

test('a prompt that costs more than a quota ever holds is refused at once', async () => {
  const quota = quotaValues({ capacity: 100, fill: 10, interval: '1s' });
  const world = await newWorld({ config: { policies: [quota] } });
  const refused = await world.post('/v1/completions', completion, labelled('tokens=101'));
  const refusal = { status: 400, code: 'invalid_request', param: 'tokens' };
  expect(await expectRefusal(refused, 'openai', refusal)).toContain('policy quota');
  await world.idle();
});
