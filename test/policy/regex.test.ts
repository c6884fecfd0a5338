/** `label_matches`: Go's regular expressions on labels that callers choose. */
import { expect, test } from 'vitest';
import { parsePolicy, schedule } from '../../src/policy/index.ts';
import { problemsIn, values } from './support.ts';

const at = 'policy.concurrency_scheduler.selectors[0].label_matcher.expression.label_matches';

function selecting(regex: unknown): unknown {
  const label_matcher = { expression: { label_matches: { label: 'model', regex } } };
  return values({ block: { selectors: [{ control_point: 'c', label_matcher }] } });
}

/** Whether the policy with this expression selects a request with this label. */
function isSelected(regex: string, model?: string): boolean {
  const policy = parsePolicy(selecting(regex));
  const labels = model === undefined ? {} : { model };
  return schedule([policy], { controlPoint: 'c', labels, tokensEstimate: 1 }).policy === 'mistral';
}

test('a match may stand anywhere in the value, unless it is anchored', () => {
  expect(isSelected('gpt-4', 'my-gpt-4-turbo')).toBe(true);
  expect(isSelected('^gpt-4$', 'my-gpt-4-turbo')).toBe(false);
  expect(isSelected('^gpt-4$', 'gpt-4')).toBe(true);
  expect(isSelected('gpt-(3|4)', 'gpt-5')).toBe(false);
});

test('a request without the label does not match, not even what matches everything', () => {
  expect(isSelected('.*', '')).toBe(true);
  expect(isSelected('.*')).toBe(false);
  expect(isSelected('x*')).toBe(false);
});

test("the syntax is Go's", () => {
  expect(isSelected('(?i)GPT', 'gpt')).toBe(true);
  expect(isSelected('(?P<family>gpt)', 'gpt')).toBe(true);
  expect(isSelected('^[[:alpha:]]+$', 'gpt')).toBe(true);
  expect(isSelected('^\\pL+$', '日本')).toBe(true);
  // JavaScript knows these, Go does not.
  for (const regex of ['(?=gpt)', '(?<!a)b', '(a)\\1', '\\cA']) {
    expect(problemsIn(selecting(regex))).toEqual({
      [`${at}.regex`]: expect.stringContaining("must be a regular expression in Go's syntax (RE2)"),
    });
  }
});

test('what takes JavaScript for ever is answered', () => {
  const long = 'a'.repeat(1000);
  expect(isSelected('^(a+)+$', `${long}!`)).toBe(false);
  expect(isSelected('(a+)+$', `${long}!`)).toBe(false);
  expect(isSelected('(a|aa)+$', `${long}!`)).toBe(false);
  expect(isSelected('^(a+)+$', long)).toBe(true);
});

test('an expression that is none, or is too large, is named with the reason', () => {
  const reasonOf = (regex: unknown) => problemsIn(selecting(regex))[`${at}.regex`];
  expect(reasonOf('gpt-(4')).toMatch(/missing closing \)/);
  expect(reasonOf('('.repeat(1024))?.length).toBeLessThan(300);
  expect(reasonOf('(a{100}){10}')).toMatch(/^is too large: .* 500 are allowed$/);
  expect(isSelected('^a{400}$', 'a'.repeat(400))).toBe(true);
});

test.each([['x'.repeat(1025)], [''], [5], ['a\nb']])('no expression: %j', (regex) => {
  const found = problemsIn(selecting(regex));
  expect(found[`${at}.regex`]).toMatch(/^must be a text of 1 to 1024 characters/);
});

test('policies are frozen, and match all the same, again and again', () => {
  const policy = parsePolicy(selecting('^(gpt|mistral)-[0-9]+$'));
  const [selector] = policy.selectors;
  expect(Object.isFrozen(selector?.matcher?.expression)).toBe(true);
  for (let count = 0; count < 1000; count += 1) {
    const labels = { model: count % 2 === 0 ? `gpt-${count}` : `gpt-${count}x` };
    const scheduled = schedule([policy], { controlPoint: 'c', labels, tokensEstimate: 1 });
    expect(scheduled.policy).toBe(count % 2 === 0 ? 'mistral' : '-');
  }
});
