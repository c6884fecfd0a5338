/** What a simulator can be told, with its defaults. */

import { SluiceError } from '../errors.ts';
import { type Clock, systemClock } from './engine.ts';
import type { GpuOptions } from './gpu.ts';
import type { AnswerLength } from './text.ts';

/** All optional. The times of the GPU model are at speed 1; see gpu.ts for where they come from. */
export interface SimulatorOptions extends Partial<GpuOptions> {
  /** Address to listen on; 127.0.0.1. */
  readonly host?: string | undefined;
  /** TCP port; 0 (the default) takes a free one. */
  readonly port?: number | undefined;
  /** The model's own name, listed first; `mistral`. */
  readonly model?: string | undefined;
  /** Further names that are accepted; Ollama's and Hugging Face's names of Mistral 7B. */
  readonly models?: readonly string[] | undefined;
  /** Divides every time of the GPU model; 1. */
  readonly speed?: number | undefined;
  /** Length of an answer without a limit by the caller, in tokens; 160 to 440. */
  readonly answerTokens?: AnswerLength | undefined;
  /** Tokens in one chunk of a stream; the speed, rounded, so that chunks come 65 ms apart. */
  readonly streamTokens?: number | undefined;
  /** Prompts that wait inside for a place in the batch; one more is answered 503; 10,000. */
  readonly maxQueued?: number | undefined;
  /** Largest body, in bytes; 8 MiB. */
  readonly bodyBytes?: number | undefined;
  /** Prompts kept in the log; 10,000. */
  readonly logSize?: number | undefined;
  /** Whether the log keeps the bodies and queries of prompts as they came; false. */
  readonly keepBodies?: boolean | undefined;
  /** Length of an embedding; 256 (Mistral's own 4,096 would be mostly noise on the wire). */
  readonly embeddingDimensions?: number | undefined;
  /** Time for the GPU model; the system's. */
  readonly clock?: Clock | undefined;
  /** Ends the process, for the fault `die`; without it that fault is refused. */
  readonly onDie?: (() => void) | undefined;
}

/** The options with every default filled in. */
export interface Settings {
  readonly host: string;
  readonly port: number;
  readonly models: readonly string[];
  readonly speed: number;
  readonly gpu: GpuOptions;
  readonly answerTokens: AnswerLength;
  readonly streamTokens: number;
  readonly maxQueued: number;
  readonly bodyBytes: number;
  readonly logSize: number;
  readonly keepBodies: boolean;
  readonly embeddingDimensions: number;
  readonly clock: Clock;
  readonly onDie: (() => void) | undefined;
}

/** Throws `invalid_request` that names the first option that is out of its range. */
export function settingsFrom(options: SimulatorOptions): Settings {
  const speed = options.speed ?? 1;
  const aliases = options.models ?? ['mistral:latest', 'mistralai/Mistral-7B-Instruct-v0.2'];
  const settings: Settings = {
    host: options.host ?? '127.0.0.1',
    port: options.port ?? 0,
    models: [...new Set([options.model ?? 'mistral', ...aliases])],
    speed,
    gpu: {
      slots: options.slots ?? 4,
      prefillTokensPerSecond: options.prefillTokensPerSecond ?? 1000,
      stepMs: options.stepMs ?? 60,
      stepPerRequestMs: options.stepPerRequestMs ?? 5,
    },
    answerTokens: options.answerTokens ?? { min: 160, max: 440 },
    streamTokens: options.streamTokens ?? Math.max(1, Math.round(speed)),
    maxQueued: options.maxQueued ?? 10_000,
    bodyBytes: options.bodyBytes ?? 8 * 1024 * 1024,
    logSize: options.logSize ?? 10_000,
    keepBodies: options.keepBodies ?? false,
    embeddingDimensions: options.embeddingDimensions ?? 256,
    clock: options.clock ?? systemClock,
    onDie: options.onDie,
  };
  check(settings);
  return settings;
}

function check(settings: Settings): void {
  const { gpu, answerTokens } = settings;
  wholeNumber('port', settings.port, 0, 65_535);
  realNumber('speed', settings.speed, 0.001, 1e6);
  wholeNumber('slots', gpu.slots, 1, 4096);
  realNumber('prefillTokensPerSecond', gpu.prefillTokensPerSecond, 0.001, 1e9);
  realNumber('stepMs', gpu.stepMs, 0.001, 1e6);
  realNumber('stepPerRequestMs', gpu.stepPerRequestMs, 0, 1e6);
  wholeNumber('answerTokens.min', answerTokens.min, 1, 1e6);
  wholeNumber('answerTokens.max', answerTokens.max, answerTokens.min, 1e6);
  wholeNumber('streamTokens', settings.streamTokens, 1, 1e6);
  wholeNumber('maxQueued', settings.maxQueued, 0, 1e6);
  wholeNumber('bodyBytes', settings.bodyBytes, 1, 2 ** 30);
  wholeNumber('logSize', settings.logSize, 1, 1e6);
  wholeNumber('embeddingDimensions', settings.embeddingDimensions, 1, 4096);
}

function wholeNumber(name: string, value: number, least: number, most: number): void {
  realNumber(name, value, least, most);
  if (!Number.isInteger(value)) throw outOfRange(name, value, 'an integer');
}

function realNumber(name: string, value: number, least: number, most: number): void {
  if (value >= least && value <= most) return;
  throw outOfRange(name, value, `from ${least} to ${most}`);
}

function outOfRange(name: string, value: number, expected: string): SluiceError {
  const message = `${name} must be ${expected}, not ${value}`;
  return new SluiceError('invalid_request', message, { param: name });
}
