/**
 * The engine against the reference model: random histories of all that gateways, workers and the
 * clock do, from two gateways. The scripts and the model must answer alike, admit the same requests in
 * the same order, and hold the same; the invariants must hold after every step. What limits tokens and
 * what changes live is in model/limits.test.ts.
 */

import { test } from 'vitest';
import { runHistories } from './model/run.ts';
import { themes } from './model/themes.ts';

test('slots', () => runHistories({ theme: themes.slots, runs: 240 }), 300_000);

test('shares', () => runHistories({ theme: themes.shares, runs: 240 }), 300_000);

test('prompts', () => runHistories({ theme: themes.prompts, runs: 240 }), 300_000);
