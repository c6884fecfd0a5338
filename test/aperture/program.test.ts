/** The program of Aperture's guide for Mistral, unchanged, against Sluice in place of Aperture. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { expect, onTestFinished, test } from 'vitest';
import { parse } from 'yaml';
import { newWorld, type World } from '../gateway/world.ts';
import { certificate } from './support.ts';

/** The guide's own policy file. */
const values = parse(`
blueprint: concurrency-scheduling/base
uri: github.com/fluxninja/aperture/blueprints@latest
policy:
  policy_name: concurrency-scheduling-test
  components: []
  resources:
    flow_control:
      classifiers: []
  concurrency_scheduler:
    max_concurrency: 2
    concurrency_limiter:
      max_inflight_duration: "60s"
    scheduler:
      priority_label_key: priority
      tokens_label_key: tokens
      workload_label_key: workload
    selectors:
      - control_point: mistral-prompt
`) as object;

const program = new URL('mistral-prompts.ts', import.meta.url).pathname;

interface Line {
  readonly tier: string;
  readonly isAnswered: boolean;
}

/** Starts the program for one tier; resolves with its lines when it has sent all of its prompts. */
function run(tier: string, env: NodeJS.ProcessEnv): Promise<Line[]> {
  const child = spawn(process.execPath, [program, tier], {
    env: { PATH: process.env.PATH, OTEL_BSP_SCHEDULE_DELAY: '50', ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill());
  const lines: Line[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<Line[]>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(JSON.parse(line) as Line);
    if (lines.length === 25) resolve(lines);
  });
  child.once('exit', (code) => reject(new Error(`the program ended with ${code}`)));
  return promise;
}

/** Both tiers at once, from the moment at which all prompts wait; what they were told. */
async function runBoth(world: World, env: NodeJS.ProcessEnv, init: RequestInit = {}) {
  const flows: string[] = [];
  for (let slot = 0; slot < 2; slot++) {
    const started = await world.post('/v1/flows', { control_point: 'mistral-prompt' }, init);
    flows.push(((await started.json()) as { id: string }).id);
  }
  const all = {
    APERTURE_ADDRESS: world.grpcAddress,
    OLLAMA_URL: world.simulator.url,
    ...env,
  };
  const running = Promise.all(['open-source', 'paid'].map((tier) => run(tier, all)));
  await Promise.race([running, world.until(({ waiting }) => waiting === 50)]);
  for (const id of flows) await world.post(`/v1/flows/${id}/end`, '', init);
  return (await running).flat();
}

/** What the replica saw: the tier of each prompt in the order of their arrival. */
function tiersSeen(world: World): (string | null)[] {
  const { log } = world.simulator.state();
  return log.toSorted((a, b) => a.order - b.order).map((entry) => entry.request_id);
}

function check(world: World, lines: readonly Line[]): void {
  expect(lines.filter(({ isAnswered }) => isAnswered)).toHaveLength(50);
  // Never above max_concurrency, by the replica's own count.
  expect(world.simulator.state().in_flight_max).toBe(2);
  // Five of the paid tier for each of the other, as long as there are any: these are the first 30.
  const tiers = tiersSeen(world);
  const early = tiers.slice(0, 30).filter((tier) => tier === 'paid');
  expect(early.length).toBeGreaterThanOrEqual(24);
  expect(tiers.lastIndexOf('paid')).toBeLessThan(32);
}

test('in plaintext: paid before open-source, never above max_concurrency', async () => {
  const world = await newWorld({ worker: false, config: { policies: [values] } });
  check(world, await runBoth(world, {}));
  // All have ended, by their spans.
  await world.idle();
}, 60_000);

test('over TLS with an API key', async () => {
  const { certFile, keyFile } = await certificate();
  const config = {
    policies: [values],
    grpc_tls_cert: certFile,
    grpc_tls_key: keyFile,
    api_keys: [{ key: 'a-key' }],
  };
  const world = await newWorld({ worker: false, config });
  const address = world.grpcAddress.replace('127.0.0.1', 'localhost');
  const env = { APERTURE_API_KEY: 'a-key', APERTURE_CA: certFile, APERTURE_ADDRESS: address };
  const init = { headers: { authorization: 'Bearer a-key' } };
  check(world, await runBoth(world, env, init));
  await world.idle();
}, 60_000);
