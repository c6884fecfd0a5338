import { createHash } from 'node:crypto';
import type { Config } from '../config.ts';
import { asObject } from './bodies.ts';
import type { Prompt } from './prompts.ts';

/**
 * Which prompts should meet at one replica, as `lua/lib/capacity.lua` reads it: `key:load factor`.
 * Undefined where the pool has no such wish, or the prompt lacks what it asks for.
 */
export function affinityOf(
  { client, labels }: Pick<Prompt, 'client' | 'labels'>,
  { affinity }: Pick<Config['pools'][string], 'affinity'>,
): string | undefined {
  if (!affinity) return undefined;
  const { by, label = '', prefixBytes, loadFactor } = affinity;
  const text = by === 'label' ? labels[label] : beginningOf(client.body, prefixBytes);
  if (text === undefined || text === '') return undefined;
  const key = createHash('sha256').update(text).digest('base64url').slice(0, 16);
  return `${key}:${loadFactor}`;
}

/** How the conversation begins: the model and the settings beside it are not looked at. */
function beginningOf(body: string, bytes: number): string {
  const { messages, prompt, input, text } = asObject(JSON.parse(body)) ?? {};
  const said = JSON.stringify(messages ?? prompt ?? input ?? text ?? '');
  // Every character has a byte at least.
  return Buffer.from(said.slice(0, bytes)).subarray(0, bytes).toString('latin1');
}
