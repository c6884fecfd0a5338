/** `max_concurrency: auto`: which pools it stands for, where it can stand, and how it is shown. */
import { expect, test } from 'vitest';
import { policyText, readableDomain, type StoredDomain } from '../../src/admission/wire.ts';
import { describePolicy } from '../../src/cli/policy-text.ts';
import { policyRecord, readPolicies } from '../../src/gateway/policy-book.ts';
import { queueView } from '../../src/gateway/views.ts';
import { limitsOf, PolicyError, parsePolicy, policyWarnings } from '../../src/policy/index.ts';
import { flatValues, limitValues, problemsIn, quotaValues, values } from './support.ts';

const block = { max_concurrency: 'auto' };
const forms = [
  {
    name: 'mistral',
    path: 'policy.concurrency_scheduler.max_concurrency',
    build: (limiter: object, more: object = {}) =>
      values({ block: { ...block, ...more }, limiter: { ...limiter } }),
  },
  {
    name: 'limit',
    path: 'policy.concurrency_limiter.max_concurrency',
    build: (limiter: object, more: object = {}) =>
      limitValues({ block: { ...block, ...more }, limiter: { ...limiter } }),
  },
  {
    name: 'flat',
    path: 'max_concurrency',
    build: (limiter: object) => flatValues({ ...block, ...limiter }),
  },
];
const models = {
  large: { pool: 'b200', controlPoint: 'mistral-prompt' },
  small: { pool: 'a10', controlPoint: 'mistral-prompt' },
  again: { pool: 'b200', controlPoint: 'mistral-prompt' },
  other: { pool: 'l4', controlPoint: 'other-prompt' },
};

type Models = Parameters<typeof policyRecord>[2];

/** The problems that a gateway with these models has with the document. */
function problemsAt(document: unknown, known: Models): PolicyError['problems'] {
  try {
    policyRecord('api', document, known);
  } catch (error) {
    if (error instanceof PolicyError) return error.problems;
    throw error;
  }
  return [];
}

test.each(forms)('$name: it stands for the pools of the control points, each once', (form) => {
  const { name, build } = form;
  const policy = parsePolicy(build({ limit_by_label_key: '' }));
  expect(policy).toMatchObject({ maxConcurrency: 'auto' });
  expect(limitsOf(policy)).toEqual({ [name]: 'auto' });
  expect(policyRecord('api', policy.document, models)).toEqual({
    name,
    version: policy.version,
    structure: policy.structure,
    source: 'api',
    document: policy.document,
    limits: { [name]: { auto: ['a10', 'b200'] } },
  });
  expect(policyWarnings(policy.document)).toEqual([]);
});

test('every selector counts, and limits of labels stay numbers beside it', () => {
  const selectors = ['other-prompt', 'mistral-prompt', 'flows-only', 'other-prompt'];
  const more = { selectors: selectors.map((control_point) => ({ control_point })) };
  for (const { name, build } of forms.slice(0, 2)) {
    const document = build({ per_label: { user_id: 2 } }, more);
    expect(limitsOf(parsePolicy(document))).toEqual({ [name]: 'auto', [`${name}.user_id`]: 2 });
    expect(policyRecord('api', document, models).limits).toEqual({
      [name]: { auto: ['a10', 'b200', 'l4'] },
      [`${name}.user_id`]: 2,
    });
  }
});

test.each(forms)('$name: it cannot be the limit for each value of a label', ({ build, path }) => {
  const by = { limit_by_label_key: 'user_id' };
  expect(problemsIn(build(by))).toEqual({
    [path]:
      'must be a number: with limit_by_label_key it holds for each value of that label, and `auto` is one limit for all',
  });
  // Beside other problems, and whatever stands in the place of the label key.
  for (const odd of [null, 5, {}, ['user_id']]) {
    expect(problemsIn(build({ limit_by_label_key: odd }))).not.toHaveProperty([path]);
  }
  const wrong = problemsIn(build({ ...by, max_inflight_duration: '1' }));
  expect(Object.keys(wrong)).toHaveLength(2);
  expect(wrong).toHaveProperty([path]);
});

test.each(forms)('$name: without a model at its control point it is refused', (form) => {
  const { other } = models;
  expect(problemsAt(form.build({}), { other })).toEqual([
    {
      path: form.path,
      reason:
        'is `auto`, but no model of this gateway is scheduled at "mistral-prompt": give a number',
    },
  ]);
  expect(problemsAt(form.build({}), models)).toEqual([]);
});

test('a number asks for no model, and many control points make no endless problem', () => {
  expect(problemsAt(values(), {})).toEqual([]);
  const selectors = Array.from({ length: 256 }, (_, index) => ({ control_point: `p${index}` }));
  const [problem] = problemsAt(values({ block: { ...block, selectors } }), models);
  expect(problem?.reason).toContain('scheduled at "p0, p1, ');
  expect(problem?.reason.length).toBeLessThan(200);
});

test('policies of a config: `auto` is judged where it is known which models there are', () => {
  const sources = [
    { source: 'a.yaml', document: values({ block }) },
    { source: 'b.yaml', document: limitValues({ block: { max_concurrency: 0 } }) },
    { source: 'c.yaml', document: flatValues() },
  ];
  const wrong = 'b.yaml: policy.concurrency_limiter.max_concurrency';
  const pathsWith = (given: Models | undefined) =>
    readPolicies(sources, given).problems.map(({ path }) => path);
  expect(pathsWith(models)).toEqual([wrong]);
  expect(pathsWith({})).toEqual(['a.yaml: policy.concurrency_scheduler.max_concurrency', wrong]);
  expect(pathsWith(undefined)).toEqual([wrong]);
  const namesWith = (given: Models | undefined) =>
    readPolicies(sources, given).records.map(({ name }) => name);
  expect(namesWith(models)).toEqual(['mistral', 'flat']);
  expect(namesWith(undefined)).toEqual([]);
});

test('the step is given the pools as they are, and buckets in its own words', () => {
  const auto = { auto: ['a10', 'b200'] };
  const limitsTold = (document: unknown) =>
    JSON.parse(policyText(policyRecord('api', document, models))).limits;
  expect(limitsTold(values({ block }))).toEqual({ mistral: auto });
  expect(limitsTold(values())).toEqual({ mistral: 4 });
  expect(limitsTold(quotaValues())).toMatchObject({ quota: { capacity: 500, fill_amount: 25 } });
});

/** A domain with these limits, and nothing else to tell. */
function domainWith(limits: StoredDomain['limits'], inFlight: StoredDomain['in_flight'] = {}) {
  const told: Partial<StoredDomain> = { limits, in_flight: inFlight, nodes: [] };
  return readableDomain(told as StoredDomain);
}

test('of a limit that follows pools its units are read, and buckets are left out', () => {
  const { limits } = domainWith([
    ['fixed', '4'],
    ['mistral', 'auto 12 mistral'],
    ['two', 'auto 0 a10,b200'],
    ['quota', 'bucket 500 25 1000 1 0 7'],
  ]);
  expect(limits).toEqual({ fixed: 4, mistral: 12, two: 0 });
});

test('queues show the limit that is in force, and that it is auto', () => {
  const policies = [
    values({ block, limiter: { per_label: { user_id: 2 } } }),
    limitValues({ block }),
    values({ name: 'fixed' }),
  ].map(parsePolicy);
  const stored: [string, string][] = [
    ['mistral', 'auto 12 b200'],
    ['mistral.user_id', '2'],
    ['limit', 'auto 3 a10'],
    ['fixed', '4'],
  ];
  const taken: [string, string][] = [
    ['mistral', '5'],
    ['mistral.user_id=ann', '1'],
    ['limit', '3'],
  ];
  expect(queueView('mistral-prompt', policies, domainWith(stored, taken))).toMatchObject({
    limits: [
      { key: 'mistral.user_id=ann', limit: 2, in_flight: 1 },
      { key: 'mistral', limit: 12, auto: true, in_flight: 5, waiting: 0 },
      { key: 'limit', limit: 3, auto: true, in_flight: 3 },
      { key: 'fixed', limit: 4, in_flight: 0, waiting: 0 },
    ],
  });
  const { limits } = queueView('mistral-prompt', policies, domainWith([])) as { limits: object[] };
  expect(limits).toContainEqual({ key: 'limit', limit: 0, auto: true, in_flight: 0 });
  expect(limits.filter((limit) => 'auto' in limit)).toHaveLength(2);
});

test('in one line it says that it is auto', () => {
  expect(describePolicy(values({ block }))).toBe(
    'at most what the pools take (auto) at once on mistral-prompt',
  );
  expect(describePolicy(limitValues({ block }))).toBe(
    'at most what the pools take (auto) at once, and others are refused, on mistral-prompt',
  );
  expect(describePolicy(values())).toBe('at most 4 at once on mistral-prompt');
});
