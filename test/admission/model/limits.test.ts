/** The engine against the reference model, as model.test.ts: token buckets, live change, and all at once. */

import { test } from 'vitest';
import { runHistories } from './run.ts';
import { themes } from './themes.ts';

test('buckets', () => runHistories({ theme: themes.buckets, runs: 240 }), 300_000);

test('changes', () => runHistories({ theme: themes.changes, runs: 240 }), 300_000);

test('all', () => runHistories({ theme: themes.all, runs: 240 }), 300_000);
