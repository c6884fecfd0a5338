/** Portkey's gateway, which is in front of a replica as Sluice is, and schedules nothing. */

import { request } from 'undici';
import { freePort } from '../../src/redis-server/port.ts';
import { installPeers, peerPath } from './peers.ts';
import { type Program, startProgram } from './programs.ts';
import type { Target } from './prompts.ts';

const again = 50;

/** Starts it as its `npx @portkey-ai/gateway` does, without its console, in front of one replica. */
export async function startPortkey(
  replicaUrl: string,
  progress: (text: string) => void,
): Promise<Program<Target>> {
  await installPeers(progress);
  const url = `http://127.0.0.1:${await freePort()}`;
  const headers = {
    authorization: 'Bearer x',
    'x-portkey-provider': 'openai',
    'x-portkey-custom-host': `${replicaUrl}/v1`,
  };
  return startProgram({
    name: 'portkey',
    args: [
      peerPath('@portkey-ai/gateway/build/start-server.js'),
      '--headless',
      `--port=${new URL(url).port}`,
    ],
    env: { NODE_ENV: 'production' },
    ready: async () => {
      await untilAnswered(url);
      return { url, headers };
    },
  });
}

/** It has no line for programs that says that it is ready. */
async function untilAnswered(url: string): Promise<void> {
  for (;;) {
    try {
      const { body } = await request(url);
      await body.dump();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, again));
    }
  }
}
