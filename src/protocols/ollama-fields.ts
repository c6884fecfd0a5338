import { invalid } from './fields.ts';
import { type Fields, isObject, numberOf } from './json.ts';

/** Fields of Ollama's requests that do not change the answer. */
export const neutralFields: readonly string[] = ['model', 'stream', 'keep_alive'];

/** What Ollama assumes where a field is missing. */
export const idleFields: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ['template', ''],
  ['suffix', ''],
  ['raw', false],
  ['system', ''],
  ['format', ''],
  ['think', false],
  ['logprobs', false],
]);

/** Options that say how a model is loaded and kept (https://docs.ollama.com/modelfile#parameter). */
export const loadOptions: ReadonlySet<string> = new Set([
  ...['num_ctx', 'num_batch', 'num_gpu', 'main_gpu', 'use_mmap', 'use_mlock', 'num_thread'],
  ...['numa', 'low_vram', 'num_keep', 'vocab_only', 'f16_kv', 'keep_alive'],
]);

/** @throws SluiceError when they are no object */
export function optionsOf({ options }: Fields): Fields {
  const given = options ?? {};
  if (!isObject(given)) throw invalid('options', 'must be an object');
  return given;
}

/** Whether `num_predict` is a limit: 0, -1 and -2 are none. @throws SluiceError */
export function isLimit(numPredict: unknown): boolean {
  const limit = numberOf(numPredict);
  if (limit === undefined) throw invalid('options.num_predict', 'must be a number');
  return limit > 0;
}

/** A switch that is off where it is missing. @throws SluiceError */
export function flagOf(fields: Fields, name: string): boolean {
  const value = fields[name] ?? false;
  if (typeof value !== 'boolean') throw invalid(name, 'must be true or false');
  return value;
}
