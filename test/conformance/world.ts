/** Worlds whose replica speaks any protocol, and a fetch that notes what an official client sends. */
import { afterAll, afterEach, beforeAll, expect, onTestFinished } from 'vitest';
import { type SimulatorOptions, startSimulator } from '../../src/simulator/index.ts';
import { newWorld, type World, type WorldOptions } from '../gateway/world.ts';

export interface ReplicaKind {
  readonly protocol: 'ollama' | 'openai' | 'ray';
  readonly template?: 'mistral-instruct';
}

/** The simulator streams a few tokens at a time, and its log keeps what arrived. */
const replicaOptions: SimulatorOptions = {
  speed: 1000,
  slots: 8,
  streamTokens: 4,
  keepBodies: true,
};

/** A world as the gateway's tests have it, in front of one replica of this kind. */
export async function worldOf(
  { protocol, template }: ReplicaKind,
  options: WorldOptions = {},
  stopLater: (stop: () => Promise<void>) => void = onTestFinished,
): Promise<World> {
  const simulator = await startSimulator({ ...replicaOptions, ...options.simulator });
  stopLater(() => simulator.stop());
  const replicas = [{ url: simulator.url, protocol, max_inflight: 8 }];
  const config = {
    pools: { conformance: { replicas, ...(template && { template }) } },
    models: { mistral: { pool: 'conformance', control_point: 'mistral-prompt' } },
    ...options.config,
  };
  return { ...(await newWorld({ ...options, config }, stopLater)), simulator };
}

/** A world for a group of tests, which is idle after each. */
export function sharedWorld(
  kind: ReplicaKind,
  options: WorldOptions = {},
): { readonly world: World } {
  const stops: (() => Promise<void>)[] = [];
  const shared = {} as { world: World };
  beforeAll(async () => {
    shared.world = await worldOf(kind, options, (stop) => stops.push(stop));
  });
  afterEach(() => shared.world.idle());
  afterAll(async () => {
    for (const stop of stops.toReversed()) await stop();
  });
  return shared;
}

interface Sent {
  readonly body: string;
  /** 0 until it is answered. */
  status: number;
}

/** A fetch for a client's options, and what it was asked to send. */
export function noting(onResponse: (response: Response) => Promise<void> = async () => {}): {
  readonly fetch: typeof fetch;
  readonly sent: Sent[];
} {
  const sent: Sent[] = [];
  return {
    sent,
    fetch: async (input, init) => {
      const one = { body: typeof init?.body === 'string' ? init.body : '', status: 0 };
      sent.push(one);
      const response = await fetch(input, init);
      one.status = response.status;
      await onResponse(response);
      return response;
    },
  };
}

/** The body of the last prompt as the replica got it. */
export function arrived(world: World): string {
  return world.simulator.state().log.at(-1)?.body ?? '';
}

/** All that an iterable gives. */
export async function gathered<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** All that an iterable gives before it throws, and what it throws. */
export async function broken<Item>(
  items: AsyncIterable<Item>,
): Promise<{ came: Item[]; error: unknown }> {
  const came: Item[] = [];
  try {
    for await (const item of items) came.push(item);
  } catch (error) {
    return { came, error };
  }
  return { came, error: undefined };
}

/** Asserts which error a client throws, and what it says. */
export async function refused(
  asked: Promise<unknown>,
  kind: abstract new (...given: never[]) => Error,
  fields: object,
): Promise<void> {
  const error = await asked.then(
    () => 'no error',
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(kind);
  expect(error).toMatchObject(fields);
}
