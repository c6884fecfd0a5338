/**
 * What the protocols of replicas have in common for a scheduler: which paths they serve, and where
 * a reply says how many tokens it cost.
 */

export type Protocol = 'ollama' | 'openai' | 'ray';

/** Ollama also serves OpenAI's paths (its "OpenAI compatibility"). */
const pathsOf: Record<Protocol, readonly string[]> = {
  ollama: ['/api/', '/v1/'],
  openai: ['/v1/'],
  ray: ['/infer'],
};

/** Whether a replica of this protocol answers this path as it is. */
export function servesPath(protocol: string, path: string): boolean {
  const paths = pathsOf[protocol as Protocol] ?? [];
  return paths.some((prefix) => path.startsWith(prefix));
}

/**
 * Actual tokens of a reply, prompt and completion: OpenAI's `usage.total_tokens`, Ollama's
 * `prompt_eval_count` + `eval_count`. Undefined where the reply does not say.
 */
export function tokensOfReply(body: string): number | undefined {
  let reply: unknown;
  try {
    reply = JSON.parse(body);
  } catch {
    return undefined;
  }
  if (typeof reply !== 'object' || reply === null) return undefined;
  const { usage, prompt_eval_count, eval_count } = reply as Record<string, unknown>;
  if (typeof usage === 'object' && usage !== null && 'total_tokens' in usage) {
    return count(usage.total_tokens);
  }
  if (eval_count === undefined) return undefined;
  return count(Number(prompt_eval_count ?? 0) + Number(eval_count));
}

function count(tokens: unknown): number | undefined {
  return typeof tokens === 'number' && Number.isFinite(tokens) && tokens >= 0
    ? Math.round(tokens)
    : undefined;
}
