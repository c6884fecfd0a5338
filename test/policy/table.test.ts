/** docs/policy-fields.md has every field of every form, and says of each what the code does with it. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { type Form, forms, type Row } from './rows.ts';

const file = new URL('../../docs/policy-fields.md', import.meta.url);
const flatHeading = 'The flat form';
const fieldRow = /^\| `([^`]+)` \| (honoured|accepted|refused) \| (\S.*\.) \|$/;

interface Entry {
  readonly isFlat: boolean;
  /** `policy.concurrency_scheduler.selectors[].service` */
  readonly path: string;
  readonly word: string;
  readonly sentence: string;
}

/** The rows of the tables, each under all paths that precede its table. */
function entriesIn(text: string): Entry[] {
  const entries: Entry[] = [];
  let heading = '';
  let prefixes: string[] = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('## ')) {
      heading = line.slice(3);
      prefixes = [''];
    }
    if (line.startsWith('Under ')) {
      prefixes = [...line.matchAll(/`([^`]+)`/g)].map(([, path]) => `${path}.`);
    }
    const [, field, word = '', sentence = ''] = fieldRow.exec(line) ?? [];
    if (field === undefined) continue;
    const isFlat = heading === flatHeading;
    for (const prefix of prefixes) {
      entries.push({ isFlat, path: `${prefix}${field}`, word, sentence });
    }
  }
  return entries;
}

function wordFor({ gives, isRefused }: Row): string {
  if (gives !== undefined) return 'honoured';
  return isRefused ? 'refused' : 'accepted';
}

const blocks = Object.values(forms).flatMap(({ block }) => (block === '' ? [] : `${block}.`));
const text = readFileSync(file, 'utf8');
const entries = entriesIn(text);

/** The entries of a blueprint: its own block, and what stands beside the block of any. */
function ofForm({ block }: Form): Entry[] {
  if (block === '') return entries.filter(({ isFlat }) => isFlat);
  return entries.filter(({ isFlat, path }) => {
    if (isFlat) return false;
    return path.startsWith(`${block}.`) || !blocks.some((other) => path.startsWith(other));
  });
}

/** The words of rows that the entries leave out. */
function unsaidIn(told: readonly Entry[], { rows }: Form): string[] {
  return Object.entries<Row>(rows).flatMap(([path, { word }]) => {
    const entry = told.find((other) => other.path === path);
    return word === undefined || entry?.sentence.includes(`\`${word.right}\``) ? [] : [path];
  });
}

describe.each<[string, Form]>(Object.entries(forms))('%s', (_name, form) => {
  test('the tables have its fields, each once, and say what becomes of each', () => {
    const told = ofForm(form).map(({ path, word }) => `${path}: ${word}`);
    const rows = Object.entries(form.rows).map(
      ([path, row]) => `${path.replaceAll('.0.', '[].')}: ${wordFor(row)}`,
    );
    expect(told.toSorted()).toEqual(rows.toSorted());
  });

  test('a word that is right where a number is, too, is in its sentence', () => {
    expect(unsaidIn(ofForm(form), form)).toEqual([]);
  });
});

test('every row says one of the three words and a sentence', () => {
  const rows = text.split('\n').filter((line) => /^\| `[^`]+` \| (?!`)/.test(line));
  expect(rows.length).toBeGreaterThan(50);
  for (const row of rows) expect(row).toMatch(fieldRow);
});

test('a table that lacks a field, or says something else of one, is noticed', () => {
  const pathsOf = (changed: string) =>
    entriesIn(changed).map(({ path, word }) => `${path}: ${word}`);
  const at = 'policy.rate_limiter.selectors[].service: accepted';
  expect(pathsOf(text)).toContain(at);
  expect(pathsOf(text.replace('| `service` | accepted', '| `service` | honoured'))).not.toContain(
    at,
  );
  expect(pathsOf(text.replace(/\| `service` .*\n/, ''))).not.toContain(at);
  const silent = entriesIn(text.replaceAll('`auto`', 'it'));
  expect(unsaidIn(silent, forms.concurrency_limiter)).toEqual([
    'policy.concurrency_limiter.max_concurrency',
  ]);
});
