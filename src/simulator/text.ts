/**
 * What the replica says. The same prompt always gives the same answer of the same length, on every
 * replica, so that a retried prompt and a repeated benchmark can be compared.
 */

import { createHash } from 'node:crypto';

export interface Answer {
  /** One word each, with its space and punctuation; joined they are the text. */
  readonly tokens: readonly string[];
  /** `length` when the caller's limit cut it short. */
  readonly finishReason: 'stop' | 'length';
}

/** How long answers are when the caller sets no limit, in tokens, both included. */
export interface AnswerLength {
  readonly min: number;
  readonly max: number;
}

/**
 * The answer to a prompt. Its length is uniform between the bounds, by a hash of the prompt; a
 * lower `maxTokens` gives the beginning of the same text.
 */
export function answerTo(prompt: string, length: AnswerLength, maxTokens?: number): Answer {
  const random = randomFrom(seedOf(prompt));
  const natural = length.min + Math.floor(random() * (length.max - length.min + 1));
  const count = Math.min(natural, maxTokens ?? natural);
  return {
    tokens: words(natural, random).slice(0, count),
    finishReason: count < natural ? 'length' : 'stop',
  };
}

/** The words from one count of tokens to another. Behind the last one the answer begins again. */
export function wordsOf({ tokens }: Answer, from: number, to: number): string {
  let text = '';
  for (let place = from; place < to; place++) {
    const index = place % tokens.length;
    text += `${index === 0 && place > 0 ? ' ' : ''}${tokens[index] ?? ' '}`;
  }
  return text;
}

/** Tokens of a prompt: one per four characters, the usual rule of thumb for English; at least 1. */
export function countTokens(text: string): number {
  return Math.max(1, Math.ceil(text.length / 4));
}

/** A unit vector that follows from the text alone. */
export function embed(text: string, dimensions: number): number[] {
  const random = randomFrom(seedOf(text));
  const raw = Array.from({ length: dimensions }, () => random() * 2 - 1);
  const norm = Math.hypot(...raw) || 1;
  return raw.map((value) => value / norm);
}

/** A generator of numbers in [0, 1) with 32 bits of state (mulberry32, public domain). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function seedOf(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32LE(0);
}

/** Sentences of 6 to 14 words that follow one grammar, roughly; the last one ends. */
function words(count: number, random: () => number): string[] {
  const tokens: string[] = [];
  let place = 0;
  let length = 0;
  while (tokens.length < count) {
    if (place === length) {
      place = 0;
      length = 6 + Math.floor(random() * 9);
    }
    const choices = lexicon[grammar[place % grammar.length] ?? 'noun'];
    const word = choices[Math.floor(random() * choices.length)] ?? 'word';
    const shown = place === 0 ? `${word.charAt(0).toUpperCase()}${word.slice(1)}` : word;
    place += 1;
    const isLast = place === length || tokens.length === count - 1;
    tokens.push(`${tokens.length === 0 ? '' : ' '}${shown}${isLast ? '.' : ''}`);
  }
  return tokens;
}

const lexicon = {
  article: 'the a this each another some every one'.split(' '),
  adjective: (
    'small large clear simple careful common different early late open quiet bright strong fair ' +
    'steady gentle narrow recent useful certain'
  ).split(' '),
  noun: (
    'model prompt answer request system queue user team service reader writer question example ' +
    'result number value limit price idea reason change moment season river mountain garden window ' +
    'morning winter city harbour letter story picture machine engine signal pattern language memory ' +
    'context sentence word detail structure process step order balance'
  ).split(' '),
  verb: (
    'becomes follows keeps gives takes shows explains suggests needs holds reaches improves ' +
    'describes considers begins moves means helps joins covers'
  ).split(' '),
  link: (
    'of in on with without between across under over through before after during because while ' +
    'when and or but from by for about into near'
  ).split(' '),
} as const satisfies Record<string, readonly string[]>;

const grammar = [
  ...(['article', 'adjective', 'noun', 'verb', 'article', 'noun', 'link'] as const),
  ...(['article', 'noun', 'link', 'article', 'adjective', 'noun', 'link'] as const),
];
