/** A Redis Cluster of three nodes on free ports of this machine, without replicas. */

import { spawn } from 'node:child_process';
import { Redis } from 'ioredis';
import { freePort } from '../../src/redis-server/port.ts';
import { superviseServer } from '../../src/redis-server/process.ts';
import { temporaryFolder } from './folder.ts';

const hashSlots = 16_384;
const readyMs = 10_000;
const agreeMs = 30_000;

export interface ClusterNode {
  readonly url: string;
  readonly admin: Redis;
  /** Hash slots, both included. */
  readonly from: number;
  readonly to: number;
}

export interface RedisCluster {
  readonly nodes: readonly ClusterNode[];
  stop(): Promise<void>;
}

export async function startCluster(program: string, size: number): Promise<RedisCluster> {
  const stops: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const end of stops.splice(0).toReversed()) await end();
  };
  try {
    const nodes: ClusterNode[] = [];
    const busPorts: number[] = [];
    for (let place = 0; place < size; place++) {
      const folder = await temporaryFolder();
      stops.push(folder.remove);
      const [port, busPort] = [await freePort(), await freePort()];
      const server = await startNode(program, folder.path, port, busPort);
      stops.push(server.stop);
      const admin = new Redis(port, '127.0.0.1');
      stops.push(async () => admin.disconnect());
      const from = Math.floor((place * hashSlots) / size);
      const to = Math.floor(((place + 1) * hashSlots) / size) - 1;
      await admin.call('CLUSTER', 'ADDSLOTSRANGE', from, to);
      nodes.push({ url: `redis://127.0.0.1:${port}`, admin, from, to });
      busPorts.push(busPort);
    }
    for (const [place, { url }] of nodes.entries()) {
      const { hostname, port } = new URL(url);
      await nodes[0]?.admin.call('CLUSTER', 'MEET', hostname, port, busPorts[place] ?? '');
    }
    await Promise.all(nodes.map(({ admin }) => untilAgreed(admin, size)));
    return { nodes, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The node that owns a key. */
export async function ownerOf(cluster: RedisCluster, key: string): Promise<ClusterNode> {
  const slot = Number(await cluster.nodes[0]?.admin.call('CLUSTER', 'KEYSLOT', key));
  const owner = cluster.nodes.find(({ from, to }) => slot >= from && slot <= to);
  if (owner === undefined) throw new Error(`nobody owns slot ${slot}`);
  return owner;
}

function startNode(program: string, dir: string, port: number, busPort: number) {
  const options = {
    port,
    'cluster-enabled': 'yes',
    // The default is port + 10,000, which a free port may be too high for.
    'cluster-port': busPort,
    bind: '127.0.0.1',
    dir,
    appendonly: 'no',
    save: '',
    'maxmemory-policy': 'noeviction',
  };
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  return superviseServer(child, { port, readyMs, knowsItsPid: true });
}

async function untilAgreed(redis: Redis, size: number): Promise<void> {
  const until = performance.now() + agreeMs;
  for (;;) {
    const info = String(await redis.call('CLUSTER', 'INFO'));
    if (info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${size}`)) return;
    if (performance.now() > until) throw new Error(`no cluster after ${agreeMs} ms:\n${info}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
