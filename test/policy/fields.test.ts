/** Every field of every blueprint and of the flat form: what it gives; and what is refused in it. */
import { describe, expect, test } from 'vitest';
import { isMapping } from '../../src/document.ts';
import { parsePolicy } from '../../src/policy/index.ts';
import { type Form, forms } from './rows.ts';
import { fieldsOf, problemsIn, quotaValues, rateValues } from './support.ts';

/** The value with another at the path; mappings on the way are made. */
function changed(value: unknown, path: readonly string[], to: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return to;
  if (Array.isArray(value)) return value.with(Number(key), changed(value[Number(key)], rest, to));
  const fields = isMapping(value) ? value : {};
  return { ...fields, [key]: changed(fields[key], rest, to) };
}

/** What a policy says, without what tells documents apart. */
function said(document: unknown): object {
  const {
    version: _version,
    structure: _structure,
    document: _document,
    ...rest
  } = parsePolicy(document);
  return rest;
}

describe.each<[string, Form]>(Object.entries(forms))('%s', (_name, form) => {
  const { schema, small, rows, block, required } = form;

  test('every field has a row', () => {
    expect(Object.keys(rows).toSorted()).toEqual(fieldsOf(schema).toSorted());
  });

  test.each(Object.entries(rows))('%s', (path, { right, gives, word, isOnly, wrong }) => {
    const keys = path.split('.');
    const policy = said(changed(small, keys, right));
    if (gives === undefined) expect(policy).toEqual(said(small));
    else {
      expect(policy).toMatchObject(gives);
      if (!isOnly) expect(said(small)).not.toMatchObject(gives);
    }
    if (word !== undefined) {
      expect(said(changed(small, keys, word.right))).toMatchObject(word.gives);
    }
    const at = path.replaceAll(/\.(\d+)/g, '[$1]');
    for (const value of [null, ...wrong]) {
      const problems = Object.entries(problemsIn(changed(small, keys, value)));
      expect(problems.length).toBeGreaterThan(0);
      for (const [where, reason] of problems) {
        expect(where.slice(0, at.length)).toBe(at);
        expect(reason).toMatch(/^(must be|is not a (field|name))/);
        expect(reason.length).toBeLessThan(300);
      }
    }
  });

  test('what is required is missed, what is not known is refused, and both are named', () => {
    const prefix = block === '' ? '' : `${block}.`;
    for (const field of required) {
      const found = problemsIn(without(small, `${prefix}${field}`.split('.')));
      expect(Object.keys(found)).toEqual([`${prefix}${field}`]);
      expect(Object.values(found)[0]).toMatch(/^is missing; it must be/);
    }
    const unknown = problemsIn(changed(small, `${prefix}max_concurency`.split('.'), 1));
    expect(unknown[`${prefix}max_concurency`]).toMatch(/^is not a field/);
  });

  test('an empty label key says the same as none', () => {
    const keys = Object.keys(rows).filter((path) => /label_key$/.test(path));
    expect(keys.length).toBeGreaterThan(0);
    for (const path of keys) {
      const absent = parsePolicy(without(small, path.split('.')));
      const empty = parsePolicy(changed(small, path.split('.'), ''));
      expect({ ...empty, version: '', document: '' }).toEqual({
        ...absent,
        version: '',
        document: '',
      });
    }
  });
});

/** The value without what is at the path, which may be absent. */
function without(value: unknown, [key, ...rest]: readonly string[]): unknown {
  if (key === undefined || !isMapping(value)) return value;
  if (rest.length > 0) {
    return key in value ? { ...value, [key]: without(value[key], rest) } : value;
  }
  const { [key]: _dropped, ...others } = value;
  return others;
}

test('fields that exclude each other, and blocks of another blueprint, are refused with the reason', () => {
  const both = { limit_by_label_key: 'a', label_key: 'a' };
  expect(problemsIn(quotaValues({ limiter: both }))).toEqual({
    'policy.quota_scheduler.rate_limiter.label_key':
      'is the old name of limit_by_label_key, which is given too; keep one of the two',
  });
  expect(Object.keys(problemsIn(rateValues({ limiter: both })))).toEqual([
    'policy.rate_limiter.parameters.label_key',
  ]);
  expect(problemsIn({ ...(rateValues() as object), blueprint: 'quota-scheduling/base' })).toEqual({
    'policy.rate_limiter': expect.stringContaining('resources, quota_scheduler'),
    'policy.quota_scheduler': 'is missing; it must be a mapping',
  });
  const odd = { ...(quotaValues({ block: { fill_amount: 0 } }) as object), blueprint: 'quota' };
  expect(Object.keys(problemsIn(odd))).toEqual(['blueprint', 'policy.quota_scheduler.fill_amount']);
});

test('a bucket that would not fill within a hundred years is refused', () => {
  const slow = { bucket_capacity: 10_000_000, fill_amount: 0.001 };
  const reason = 'is too little: an empty bucket would take more than 100 years to fill';
  const limiter = { interval: '24h' };
  expect(problemsIn(quotaValues({ block: slow, limiter }))).toEqual({
    'policy.quota_scheduler.fill_amount': reason,
  });
  expect(problemsIn(rateValues({ block: slow, limiter }))).toEqual({
    'policy.rate_limiter.fill_amount': reason,
  });
  const years = { bucket_capacity: 36_500, fill_amount: 1 };
  expect(parsePolicy(rateValues({ block: years, limiter })).kind).toBe('rate');
});
