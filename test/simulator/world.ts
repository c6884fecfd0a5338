/** What the tests of the simulated replica share: a replica of their own, and short requests. */

import { onTestFinished } from 'vitest';
import {
  type Simulator,
  type SimulatorOptions,
  startSimulator,
} from '../../src/simulator/index.ts';

/** A replica that answers in a few milliseconds, stopped when the test is over. */
export async function quickReplica(options: SimulatorOptions = {}): Promise<Simulator> {
  const simulator = await startSimulator({ speed: 1000, streamTokens: 50, ...options });
  onTestFinished(() => simulator.stop());
  return simulator;
}

/** A replica that takes ten seconds and more for an answer: whatever it runs, runs for the test. */
export function slowReplica(options: SimulatorOptions = {}): Promise<Simulator> {
  return quickReplica({ speed: 1, streamTokens: 1, ...options });
}

export function post(
  simulator: Simulator,
  path: string,
  body: unknown,
  init: RequestInit = {},
): Promise<Response> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return fetch(`${simulator.url}${path}`, { method: 'POST', body: text, ...init });
}

export interface Pending {
  /** Drop the connection. */
  leave(): void;
  readonly outcome: Promise<string>;
}

/** A prompt whose outcome the test does not wait for, or makes itself by leaving. */
export function ask(simulator: Simulator, prompt = 'a prompt', stream = false): Pending {
  const controller = new AbortController();
  const body = { model: 'mistral', prompt, stream };
  const outcome = post(simulator, '/api/generate', body, { signal: controller.signal })
    .then(async (response) => `${response.status} ${await response.text()}`)
    .catch((error: unknown) => `failed: ${error instanceof Error ? error.name : error}`);
  return { leave: () => controller.abort(), outcome };
}

/** The objects of a stream of lines. */
export function lines(text: string): Record<string, unknown>[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}
