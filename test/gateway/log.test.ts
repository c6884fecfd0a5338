/** Logs name requests and never what is in them. */
import { Redis } from 'ioredis';
import { expect, test } from 'vitest';
import { domainKey } from '../../src/admission/keys.ts';
import { createLog } from '../../src/telemetry/index.ts';

import { expectRefusal } from './errors.ts';
import { newWorld } from './world.ts';

const secret = 'xyzzy';
const key = `sk-${secret}-key`;
const labels = `user_id=u-${secret},workload=w-${secret}`;
const prompt = `Tell me about ${secret}`;
const headers = { Authorization: `Bearer ${key}`, 'Sluice-Labels': labels };

test('prompts, bodies, labels and keys are in no line, ids are', async () => {
  const apiKeys = [{ key, labels: { tenant: `t-${secret}` } }];
  const world = await newWorld({ replicas: 3, max: 1, config: { api_keys: apiKeys } });
  const ids: (string | null)[] = [];
  const post = async (status: number, path: string, body: unknown, more: object = {}) => {
    const answer = await world.post(path, body, { headers: { ...headers, ...more } });
    const text = await answer.text();
    expect({ status: answer.status, text }).toMatchObject({ status });
    ids.push(answer.headers.get('sluice-request-id'));
  };
  const messages = [{ role: 'user', content: prompt }];

  await post(200, '/v1/chat/completions', { messages });
  await post(200, '/api/generate', { prompt, system: secret });
  await post(202, '/v1/jobs', { path: '/api/chat', body: { messages }, labels: { l: secret } });
  await post(400, '/v1/chat/completions', { messages, n: 5, user: secret });
  const accepted = ids.length;

  await post(400, '/v1/chat/completions', `{"prompt": ${secret}`);
  await post(404, '/v1/completions', { prompt, model: secret });
  await post(400, '/v1/completions', { prompt, stream: secret });
  await post(400, '/v1/jobs', { path: secret, body: { prompt } });
  await post(400, '/v1/jobs', { [secret]: 1 });
  await post(413, '/v1/completions', { prompt, x: secret.repeat(300_000) });
  await post(401, '/v1/completions', { prompt }, { Authorization: `Bearer ${secret}` });
  for (const label of ['priority', 'tokens']) {
    await post(400, '/v1/completions', { prompt }, { 'Sluice-Labels': `${label}=${secret}` });
  }
  await post(400, '/v1/completions', { prompt }, { 'Sluice-Labels': secret });
  await post(400, '/v1/completions', { prompt }, { 'Sluice-Priority': secret });
  await post(400, '/v1/completions', { prompt }, { 'Sluice-Timeout-Ms': secret });
  await post(400, '/v1/completions', { prompt }, { 'Sluice-Control-Point': `${secret} a` });
  expect((await world.get(`/infer?text=${secret}`, { headers })).status).toBe(200);
  await world.raw(`${secret}\r\n\r\n`);
  await world.raw(`GET / HTTP/1.1\r\nHost: x\r\nX: ${secret.repeat(5_000)}\r\n\r\n`);

  await world.simulator.setFault({ mode: 'error' });
  const failing = ids.length;
  await post(502, '/v1/completions', { prompt });
  await world.simulator.setFault({ mode: 'hang' });
  const controller = new AbortController();
  const { started } = world.simulator.state();
  const init = { headers, signal: controller.signal };
  const job = { path: '/v1/completions', body: { prompt } };
  await post(202, '/v1/jobs', job);
  const gone = world.post('/v1/completions', { prompt }, init).catch(() => 'gone');
  await post(504, '/v1/completions', { prompt }, { 'Sluice-Timeout-Ms': '20' });
  controller.abort();
  await gone;
  const cancelled = { headers, method: 'DELETE' };
  await world.get(`/v1/jobs/${ids.at(-2)}`, cancelled);
  await world.idle();
  expect(world.simulator.state().started).toBeLessThanOrEqual(started + 1);

  for (const id of [...ids.slice(0, accepted), ...ids.slice(failing)]) {
    expect(world.log()).toContain(`"id":"${id}"`);
  }
  expect(world.log()).not.toContain(secret);
});

test('an error inside a step is logged with its place in the Lua file, without its arguments', async () => {
  const world = await newWorld();
  const redis = new Redis(world.redisUrl);
  const broken = domainKey(world.config.domain, 'fair');
  await redis.del(broken);
  await redis.set(broken, 'not a hash');
  const answer = await world.post('/v1/completions', { prompt }, { headers });
  await expectRefusal(answer, 'openai', { status: 500, code: 'internal' });
  const id = answer.headers.get('sluice-request-id');
  await redis.del(broken);
  redis.disconnect();
  const line = world
    .log()
    .split('\n')
    .find((text) => text.includes('"level":50'));
  expect(line).toContain(`"id":"${id}"`);
  expect(line).toMatch(/WRONGTYPE.*lua\//);
  expect(world.log()).not.toContain(secret);
  expect((await world.post('/v1/completions', { prompt: 'Why?' })).status).toBe(200);
});

test('the arguments of a command that an error drags along are left out', () => {
  let text = '';
  const to = {
    write: (line: string) => {
      text += line;
    },
  };
  const log = createLog('info', 'test', to);
  const reply = Object.assign(new Error('OOM'), { command: { name: 'evalsha', args: [prompt] } });
  log.error({ err: reply }, 'direct');
  log.error({ err: new Error('step failed', { cause: reply }) }, 'as a cause');
  log.error({ body: prompt, prompt, line: { body: prompt, prompt } }, 'by name');
  expect(text.split('\n')).toHaveLength(4);
  expect(text).toContain('evalsha');
  expect(text).not.toContain(secret);
});
