/** Flows of programs as processes, through gateways as processes, when one of them is killed. */
import { spawn } from 'node:child_process';
import { expect, onTestFinished, test } from 'vitest';
import { rawClient } from '../aperture/support.ts';
import { eventually, newCluster } from './world.ts';

const program = new URL('../aperture/mistral-prompts.ts', import.meta.url).pathname;
const point = 'mistral-prompt';
/** So that a gateway that is killed is soon taken for dead. */
const config = { timeouts: { member: '2s', sweep: '200ms' } };

function until(what: string, ask: () => Promise<boolean>): Promise<boolean> {
  return eventually(what, ask, 20_000);
}

async function start(url: string, control_point = point): Promise<string> {
  const body = JSON.stringify({ control_point });
  const answer = await fetch(`${url}/v1/flows`, { method: 'POST', body });
  expect(answer.status).toBe(200);
  return ((await answer.json()) as { id: string }).id;
}

test('a gateway is killed: what it let in goes on, what waited there leaves, others end it all', async () => {
  const cluster = await newCluster({ maxConcurrency: 2, config });
  const [first, second] = [await cluster.gateway('g1'), await cluster.gateway('g2')];
  const held = [await start(first.url), await start(first.url)];
  const left = start(first.url).catch(() => 'cut off');
  const stays = start(second.url);
  await until('two wait', async () => (await cluster.live()).length === 4);
  await first.kill('SIGKILL');
  expect(await left).toBe('cut off');
  // Not yet known to be dead, it is admitted before the other: nobody was told, so it ends with it.
  const end = (id: string) => fetch(`${second.url}/v1/flows/${id}/end`, { method: 'POST' });
  for (const id of held) {
    expect(await (await end(id)).json()).toEqual({ id, state: 'done' });
  }
  const last = await stays;
  await until('one is left', async () => (await cluster.live()).length === 1);
  expect((await cluster.ends()).toSorted()).toEqual(['cancelled', 'done', 'done']);
  expect(await (await end(last)).json()).toEqual({ id: last, state: 'done' });
  expect(await cluster.inFlight()).toEqual({});
}, 60_000);

test("a program of Aperture's SDK is killed while its prompts wait: they leave the queue", async () => {
  const cluster = await newCluster({ maxConcurrency: 1 });
  const gateway = await cluster.gateway('g1');
  const address = String(gateway.ready.grpc);
  const raw = rawClient(address);
  await raw.call('Check')({ control_point: point });
  const child = spawn(process.execPath, [program, 'paid'], {
    env: { PATH: process.env.PATH, APERTURE_ADDRESS: address, OTEL_BSP_SCHEDULE_DELAY: '50' },
    stdio: ['pipe', 'inherit', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  await until('all wait', async () => (await cluster.live()).length === 26);
  child.kill('SIGKILL');
  await until('they are gone', async () => (await cluster.live()).length === 1);
  expect(await cluster.inFlight()).toEqual({ mistral: '1' });
}, 60_000);
