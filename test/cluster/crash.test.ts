/** Processes that die: no prompt is lost, none ends twice, no slot stays taken. */

import { expect, test } from 'vitest';
import { chat, eventually, jobState, newCluster, submitJob } from './world.ts';

/** Takes about two seconds for an answer. */
const twoSeconds = { speed: 1, answerTokens: { min: 30, max: 30 } };

test('a worker killed mid-prompt: another runs it on the same slot within 15 s', async () => {
  const cluster = await newCluster({ maxConcurrency: 1, simulator: twoSeconds });
  const gateway = await cluster.gateway('g1');
  const workers = { w1: await cluster.worker('w1'), w2: await cluster.worker('w2') };
  const first = await submitJob(gateway.url, 'the one whose worker dies');
  await cluster.simulator.until((counts) => counts.in_flight === 1);
  const second = await submitJob(gateway.url, 'the one behind it');
  const { worker } = await cluster.running(first);

  const killedAt = Date.now();
  await workers[worker as 'w1' | 'w2'].kill('SIGKILL');
  await cluster.simulator.until((counts) => counts.started === 2, 15_000);
  expect(Date.now() - killedAt).toBeLessThan(15_000);
  // The slot stayed with the first: the second one still waits.
  expect(await cluster.inFlight()).toMatchObject({ mistral: '1' });
  expect(await jobState(gateway.url, second)).toBe('waiting');

  for (const id of [first, second]) {
    const done = async () => (await jobState(gateway.url, id)) === 'done';
    await eventually(`job ${id} is done`, done, 20_000);
  }
  const runs = cluster.simulator
    .state()
    .log.map(({ request_id, attempt, outcome }) => ({ id: request_id, attempt, outcome }));
  expect(runs).toEqual([
    { id: first, attempt: 1, outcome: 'aborted' },
    { id: first, attempt: 2, outcome: 'completed' },
    { id: second, attempt: 1, outcome: 'completed' },
  ]);
  expect(await cluster.inFlight()).toEqual({});
}, 60_000);

test('a gateway killed: its clients’ requests leave, its jobs end once, others go on', async () => {
  const cluster = await newCluster({ maxConcurrency: 1, simulator: { speed: 1000 } });
  const [dying, living] = [await cluster.gateway('dying'), await cluster.gateway('living')];
  await cluster.worker('w1');
  // The first one holds the only slot until somebody ends it.
  await cluster.simulator.setFault({ mode: 'hang', count: 1 });
  const lost = [chat(dying.url, 'user_id=a', 'runs when its gateway dies').catch(() => 'cut off')];
  await cluster.simulator.until((counts) => counts.in_flight === 1);
  lost.push(chat(dying.url, 'user_id=a', 'waits when its gateway dies').catch(() => 'cut off'));
  const jobs = [
    await submitJob(dying.url, 'a job of the gateway that dies'),
    await submitJob(dying.url, 'another job of it'),
  ];
  const other = chat(living.url, 'user_id=b', 'a client of the gateway that lives');
  const all = async () => (await cluster.live()).length === 5;
  await eventually('five requests are in', all, 5_000);

  await dying.kill('SIGKILL');
  expect(await Promise.all(lost)).toEqual(['cut off', 'cut off']);
  expect((await other).status).toBe(200);
  for (const id of jobs) {
    const done = async () => (await jobState(living.url, id)) === 'done';
    await eventually(`job ${id} is done`, done, 10_000);
  }
  expect(await cluster.live()).toEqual([]);
  expect(await cluster.inFlight()).toEqual({});
  expect((await cluster.ends()).toSorted()).toEqual([
    'cancelled',
    'cancelled',
    'done',
    'done',
    'done',
  ]);
  // The replica saw the one that ran, and each of the others once; never the one that waited.
  const outcomes = cluster.simulator.state().log.map(({ outcome }) => outcome);
  expect(outcomes.toSorted()).toEqual(['aborted', 'completed', 'completed', 'completed']);
}, 60_000);

test('a prompt that outlives the max inflight duration: aborted at the replica before its slot is free', async () => {
  const policy = {
    blueprint: 'concurrency-scheduling/base',
    policy: {
      policy_name: 'mistral',
      concurrency_scheduler: {
        max_concurrency: 1,
        concurrency_limiter: { max_inflight_duration: '3s' },
        scheduler: {},
        selectors: [{ control_point: 'mistral-prompt' }],
      },
    },
  };
  const cluster = await newCluster({
    maxConcurrency: 1,
    simulator: { speed: 1000 },
    config: { policies: [policy] },
  });
  const gateway = await cluster.gateway('g1');
  await cluster.worker('w1');
  await cluster.simulator.setFault({ mode: 'hang', count: 1 });
  const hanging = chat(gateway.url, 'user_id=a', 'is never answered');
  await cluster.simulator.until((counts) => counts.in_flight === 1);
  const next = chat(gateway.url, 'user_id=b', 'waits for the slot');
  expect((await hanging).status).toBe(504);
  expect((await next).status).toBe(200);
  expect(cluster.simulator.state().in_flight_max).toBe(1);
  expect(await cluster.inFlight()).toEqual({});
}, 30_000);
