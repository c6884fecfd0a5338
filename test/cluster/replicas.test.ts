/** Replicas that come, go, fail and drain, as real processes see it: what clients and replicas notice. */

import { expect, onTestFinished, test } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import {
  type Cluster,
  chat,
  eventually,
  newCluster,
  type SluiceProcess,
  simulatorProcess,
} from './world.ts';

/** Takes some two seconds for an answer. */
const twoSeconds = { speed: 1, answerTokens: { min: 30, max: 30 } };
const quick = { speed: 1000 };

/** The model answers, in a second. */
const modelProbe = {
  path: '/v1/chat/completions',
  post_data: { model: 'mistral', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1 },
  timeout: '5s',
  period: '300ms',
};

interface PoolView {
  readonly pool: string;
  readonly limit: number;
  readonly in_flight: number;
  readonly prober: string | null;
}
interface ReplicaView {
  readonly id: string;
  readonly state: string;
  readonly health: string;
  readonly in_flight: number;
}
interface View {
  readonly replicas: readonly ReplicaView[];
  readonly pools: readonly [PoolView];
}

async function look({
  url,
}: SluiceProcess): Promise<{ pool: PoolView; of: (id: string) => ReplicaView | undefined }> {
  const { replicas, pools } = (await (await fetch(`${url}/v1/replicas`)).json()) as View;
  return { pool: pools[0], of: (id) => replicas.find((one) => one.id === id) };
}

/** Waits until the cluster says so. */
function until(
  gateway: SluiceProcess,
  what: string,
  holds: (view: Awaited<ReturnType<typeof look>>) => boolean,
  deadlineMs = 10_000,
) {
  return eventually(what, async () => holds(await look(gateway)), deadlineMs);
}

async function put({ url }: SluiceProcess, id: string, fields: object): Promise<void> {
  const body = JSON.stringify({ pool: 'mistral', ...fields });
  const response = await fetch(`${url}/v1/replicas/${id}`, { method: 'PUT', body });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
}

async function replica(options: Parameters<typeof startSimulator>[0]): Promise<Simulator> {
  const simulator = await startSimulator(options);
  onTestFinished(() => simulator.stop());
  return simulator;
}

/** A pool whose replicas are put over HTTP alone. */
function emptyPool(more: object = {}): Promise<Cluster> {
  return newCluster({ maxConcurrency: 'auto', config: { pools: { mistral: {} }, ...more } });
}

test('a replica that starts takes its first prompt when its model answers, and not before', async () => {
  const cluster = await emptyPool();
  const gateway = await cluster.gateway('g1');
  await cluster.worker('w1');
  const late = await replica(quick);
  // It listens, and its model is not loaded.
  await late.setFault({ mode: 'unavailable', scope: 'all' });
  await put(gateway, 'late', { url: late.url, readiness_probe: modelProbe });
  const waiting = chat(gateway.url, 'user_id=a', 'waits for the model');
  await eventually(
    'it is probed',
    async () => late.state().rejected + late.state().failed > 2,
    10_000,
  );
  expect((await look(gateway)).of('late')).toMatchObject({ health: 'starting', in_flight: 0 });
  const log = () => late.state().log.map(({ request_id }) => request_id);
  expect(log().filter((id) => id !== undefined && id !== null)).toEqual([]);

  await late.setFault({ mode: 'none' });
  expect((await waiting).status).toBe(200);
  expect((await look(gateway)).of('late')).toMatchObject({ health: 'up' });
}, 60_000);

test('one of three replicas killed under 50 prompts: all are answered, the limit falls and comes back', async () => {
  const cluster = await emptyPool({ worker: { concurrency: { mistral: 64 } } });
  const gateways = [await cluster.gateway('g1'), await cluster.gateway('g2')] as const;
  await cluster.worker('w1');
  await cluster.worker('w2');
  const [gateway] = gateways;
  const processes = await Promise.all(
    [1, 2, 3].map(() => simulatorProcess({ slots: 20, speed: 2 })),
  );
  for (const [index, { url }] of processes.entries()) {
    const fields = { url, protocol: 'openai', max_inflight: 20, readiness_probe: modelProbe };
    await put(gateway, `r${index + 1}`, fields);
  }
  await until(gateway, 'three are up', ({ pool }) => pool.limit === 60);

  const ask = (count: number) => {
    const { url } = gateways[count % 2 === 0 ? 0 : 1];
    return chat(url, `user_id=u${count}`, `prompt ${count}`, undefined, { max_tokens: 80 });
  };
  const prompts = Array.from({ length: 50 }, (_, count) => ask(count));
  const isBusy = ({ pool, of }: Awaited<ReturnType<typeof look>>) =>
    pool.in_flight === 50 && (of('r2')?.in_flight ?? 0) > 10;
  await until(gateway, 'all 50 run', isBusy);
  const [, dying] = processes;
  await dying?.kill('SIGKILL');
  // What it ran is run by the others, whose places are 40.
  await until(
    gateway,
    'the limit falls',
    ({ pool, of }) => pool.limit === 40 && of('r2')?.health === 'down',
  );
  const statuses = (await Promise.all(prompts)).map(({ status }) => status);
  expect(statuses).toEqual(Array.from({ length: 50 }, () => 200));

  const { port } = new URL(dying?.url ?? '');
  await simulatorProcess({ slots: 20, speed: 2, port: Number(port) });
  await until(gateway, 'the limit is back', ({ pool }) => pool.limit === 60, 15_000);
  expect(await cluster.inFlight()).toEqual({});
}, 120_000);

test('streams: who has heard nothing yet is served elsewhere, who has is told in the stream', async () => {
  const cluster = await emptyPool();
  const gateway = await cluster.gateway('g1');
  await cluster.worker('w1');
  const [dying, other] = [await replica(twoSeconds), await replica(twoSeconds)];
  await put(gateway, 'dying', { url: dying.url, protocol: 'openai', max_inflight: 4 });
  // One breaks off after its second token, one before its first.
  await dying.setFault({ mode: 'cut', after_tokens: 2, count: 1 });
  const seen = stream(gateway, 'seen');
  await eventually('it is hit', async () => dying.state().fault_hits === 1, 10_000);
  expect(await seen).toMatchObject({ status: 200, hasText: true, error: 'upstream_failed' });

  await put(gateway, 'other', { url: other.url, protocol: 'openai', max_inflight: 4 });
  await dying.setFault({ mode: 'cut', after_tokens: 0 });
  const unseen = await Promise.all(
    Array.from({ length: 4 }, (_, count) => stream(gateway, `unseen ${count}`)),
  );
  for (const one of unseen) expect(one).toEqual({ status: 200, hasText: true, error: undefined });
  expect(await cluster.inFlight()).toEqual({});
}, 60_000);

test('a spot notice mid-run: no new prompts, what is not done by then goes on elsewhere', async () => {
  const cluster = await emptyPool();
  const gateway = await cluster.gateway('g1');
  await cluster.worker('w1');
  const spot = await replica({ speed: 1, answerTokens: { min: 400, max: 400 } });
  await put(gateway, 'spot', { url: spot.url, max_inflight: 2, spot: true });
  const long = chat(gateway.url, 'user_id=a', 'is not done by then');
  await spot.until(({ in_flight }) => in_flight === 1);
  const stays = await replica(quick);
  await put(gateway, 'stays', { url: stays.url, max_inflight: 2 });

  // As a machine is told of it by its cloud: AWS's document as it is. What runs is moved 5 s before.
  const time = new Date(Date.now() + 6_500).toISOString();
  const notice = await fetch(`${gateway.url}/v1/replicas/spot/drain`, {
    method: 'POST',
    body: JSON.stringify({ action: 'terminate', time }),
  });
  expect(notice.status).toBe(202);
  expect(await notice.json()).toMatchObject({ state: 'draining', in_flight: 1 });
  const during = await Promise.all(
    Array.from({ length: 6 }, (_, count) => chat(gateway.url, 'user_id=b', `meanwhile ${count}`)),
  );
  expect(during.map(({ status }) => status)).toEqual(Array.from({ length: 6 }, () => 200));
  const answered = await long;
  expect(answered.status).toBe(200);
  // It began there once, was ended there, and went on at the other one.
  const runs = (at: Simulator) =>
    at
      .state()
      .log.filter(({ request_id }) => request_id === answered.id)
      .map(({ attempt, outcome }) => ({ attempt, outcome }));
  expect(runs(spot)).toEqual([{ attempt: 1, outcome: 'aborted' }]);
  expect(runs(stays)).toEqual([{ attempt: 2, outcome: 'completed' }]);
  expect(spot.state().started).toBe(1);
  expect((await look(gateway)).of('spot')).toMatchObject({ state: 'draining', in_flight: 0 });
}, 60_000);

test('elected duties move within 10 s of a kill, and serving goes on', async () => {
  const cluster = await emptyPool();
  const gateway = await cluster.gateway('g1');
  const workers = new Map([
    ['w1', await cluster.worker('w1')],
    ['w2', await cluster.worker('w2')],
  ]);
  const probed = await replica(quick);
  await put(gateway, 'r1', { url: probed.url, readiness_probe: modelProbe });
  await until(gateway, 'it is up', ({ of }) => of('r1')?.health === 'up');
  const { prober } = (await look(gateway)).pool;
  const killedAt = Date.now();
  await workers.get(prober ?? '')?.kill('SIGKILL');
  await until(
    gateway,
    'another one probes',
    ({ pool }) => pool.prober !== prober && pool.prober !== null,
  );
  expect(Date.now() - killedAt).toBeLessThan(10_000);
  // It does probe, and while it was not there prompts were answered all the same.
  const { started } = probed.state();
  await probed.until((counts) => counts.started > started + 1);
  expect((await chat(gateway.url, 'user_id=a', 'goes on')).status).toBe(200);
  await probed.setFault({ mode: 'unavailable', scope: 'all' });
  await until(gateway, 'it notices', ({ of }) => of('r1')?.health === 'down');
  // Any gateway: one that joins now knows all of it.
  await gateway.kill('SIGKILL');
  const next = await cluster.gateway('g2');
  expect((await look(next)).of('r1')).toMatchObject({ health: 'down' });
  await probed.setFault({ mode: 'none' });
  expect((await chat(next.url, 'user_id=a', 'is served again')).status).toBe(200);
}, 60_000);

test('a poison prompt fails alone: its replicas go on for all others, and it is kept with its story', async () => {
  const cluster = await emptyPool();
  const gateway = await cluster.gateway('g1');
  await cluster.worker('w1');
  const replicas = await Promise.all([1, 2, 3].map(() => replica({ ...quick, slots: 16 })));
  for (const [index, one] of replicas.entries()) {
    await one.setFault({ mode: 'cut', after_tokens: 0, match: 'poison' });
    await put(gateway, `r${index + 1}`, { url: one.url, max_inflight: 16 });
  }
  const others = async (of: string) => {
    const asked = Array.from({ length: 20 }, (_, count) =>
      chat(gateway.url, `user_id=${of}`, `good ${count}`),
    );
    return (await Promise.all(asked)).map(({ status }) => status);
  };
  const [poisoned, ...rest] = await Promise.all([
    chat(gateway.url, 'user_id=p', 'this is poison'),
    others('a'),
    others('b'),
  ]);
  expect(poisoned.status).toBe(502);
  expect(rest.flat()).toEqual(Array.from({ length: 40 }, () => 200));
  const view = await look(gateway);
  expect([1, 2, 3].map((index) => view.of(`r${index}`)?.health)).toEqual(['up', 'up', 'up']);

  const letters = await (await fetch(`${gateway.url}/v1/dead-letters`)).json();
  expect(letters).toMatchObject({ total: 1, letters: [{ id: poisoned.id, attempt: 3 }] });
  const letter = `${gateway.url}/v1/dead-letters/${poisoned.id}`;
  const { story, request } = (await (await fetch(letter)).json()) as {
    story: { replica: string }[];
    request: { body: { messages: { content: string }[] } };
  };
  expect(story.map((one) => one.replica).toSorted()).toEqual(['r1', 'r2', 'r3']);
  expect(request.body.messages[0]?.content).toBe('this is poison');
  // What was wrong with it is mended: it is run as a job, once.
  for (const one of replicas) await one.setFault({ mode: 'none' });
  const replayed = await fetch(`${letter}/replay`, { method: 'POST' });
  expect(replayed.status).toBe(202);
  const { id } = (await replayed.json()) as { id: string };
  const done = async () => {
    const job = (await (await fetch(`${gateway.url}/v1/jobs/${id}`)).json()) as { state: string };
    return job.state === 'done';
  };
  await eventually('the job is done', done, 10_000);
  expect(await (await fetch(`${gateway.url}/v1/dead-letters`)).json()).toMatchObject({ total: 0 });
}, 60_000);

/** What a client of a stream saw. */
async function stream({ url }: SluiceProcess, text: string) {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    body: JSON.stringify({ stream: true, messages: [{ role: 'user', content: text }] }),
  });
  const body = await response.text();
  const error = /"code":"(\w+)"/.exec(body)?.[1];
  return { status: response.status, hasText: /"content":"[^"]/.test(body), error };
}
