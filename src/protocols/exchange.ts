import { invalid } from './fields.ts';
import { inferExchange } from './infer.ts';
import { ollamaFromOpenai } from './ollama-from-openai.ts';
import { ollamaNative } from './ollama-native.ts';
import { ollamaToRay } from './ollama-to-ray.ts';
import { openaiNative } from './openai-native.ts';
import { openaiToRay } from './openai-to-ray.ts';
import type { ClientPrompt, Exchange, Protocol, Target } from './types.ts';

/**
 * How a prompt is put to a replica, and how the reply becomes the client's: as it came where the
 * replica serves the path itself, else translated.
 * @throws SluiceError invalid_request, which names the field that cannot be translated
 */
export function exchangeFor(prompt: ClientPrompt, target: Target): Exchange {
  const front = frontOf(prompt.path);
  if (!front) throw invalid('path', 'takes no prompt');
  return exchanges[front][target.protocol](prompt, target);
}

/** Whether a replica of this protocol serves this path itself, without translation. */
export function isNative(protocol: Protocol, path: string): boolean {
  const front = frontOf(path);
  // Ollama serves OpenAI's paths, too: https://docs.ollama.com/api/openai-compatibility
  return front === protocol || (front === 'openai' && protocol === 'ollama');
}

const openaiPaths = new Set(['/v1/chat/completions', '/v1/completions', '/v1/embeddings']);

function frontOf(path: string): Protocol | undefined {
  if (openaiPaths.has(path)) return 'openai';
  if (path.startsWith('/api/')) return 'ollama';
  return path === '/infer' ? 'ray' : undefined;
}

type Translate = (prompt: ClientPrompt, target: Target) => Exchange;

/** By the client's protocol, then the replica's. */
const exchanges: Record<Protocol, Record<Protocol, Translate>> = {
  openai: { openai: openaiNative, ollama: openaiNative, ray: openaiToRay },
  ollama: { openai: ollamaFromOpenai, ollama: ollamaNative, ray: ollamaToRay },
  ray: { openai: inferExchange, ollama: inferExchange, ray: inferExchange },
};
