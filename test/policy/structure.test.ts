import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parsePolicy, schedule } from '../../src/policy/index.ts';
import { flatValues, limitValues, quotaValues, rateValues, values } from './support.ts';

type Fields = Record<string, unknown>;

const seconds = fc.integer({ min: 1, max: 3600 }).map((count) => `${count}s`);
const length = fc.nat(1_000_000);
const tokens = fc.integer({ min: 1, max: 10_000 });
const slots = fc.integer({ min: 1, max: 1000 });
const most = fc.oneof({ weight: 3, arbitrary: slots }, fc.constant('auto'));

/** Every amount that a document of any blueprint may hold. */
const amounts = fc.record({
  most,
  capacity: tokens,
  fill: tokens,
  interval: seconds,
  inflight: seconds,
  perLabel: fc.array(slots, { minLength: 3, maxLength: 3 }),
  scheduler: fc.record({ max_queue_length: length }, { requiredKeys: [] }),
  parameters: fc.record({ queue_timeout: seconds, max_queue_length: length }, { requiredKeys: [] }),
  limiter: fc.record({ max_idle_time: seconds }, { requiredKeys: [] }),
  bucket: fc.record(
    {
      continuous_fill: fc.boolean(),
      delay_initial_fill: fc.boolean(),
      lazy_sync: fc.record({ enabled: fc.boolean(), num_sync: length }, { requiredKeys: [] }),
    },
    { requiredKeys: [] },
  ),
  alerter: fc.option(fc.constant({ alert_name: 'slow', labels: { max_concurrency: '1' } })),
  none: fc.constantFrom({}, { limit_by_label_key: '' }),
  selector: fc.record(
    { agent_group: fc.constantFrom('default', 'eu'), service: fc.constantFrom('any', 'web') },
    { requiredKeys: [] },
  ),
  uri: fc.option(fc.constantFrom('blueprints@latest', 'blueprints@v2')),
});

const label = fc.constantFrom('user_id', 'team', 'tier', 'uri', 'interval', 'max_concurrency');

/** Everything that decides where a request waits, and at what cost. */
const shape = fc.record({
  kind: fc.constantFrom(
    'concurrency' as const,
    'limit' as const,
    'quota' as const,
    'rate' as const,
  ),
  perLabel: fc.subarray(['team', 'interval', 'max_concurrency']),
  limitBy: fc.option(fc.constantFrom('user_id', 'tier', 'uri')),
  matched: fc.dictionary(label, fc.constantFrom('a', 'b'), { maxKeys: 2, noNullPrototype: true }),
  name: fc.constantFrom('paid', 'free'),
  parameters: fc.record(
    { priority: fc.constantFrom(1, 2, 5), tokens: fc.constantFrom(1, 10, 20) },
    { requiredKeys: [] },
  ),
  fairness: label,
});

type Amounts = typeof amounts extends fc.Arbitrary<infer Value> ? Value : never;
type Shape = typeof shape extends fc.Arbitrary<infer Value> ? Value : never;

function documentOf(given: Shape, much: Amounts, keys: (record: Fields) => Fields = (all) => all) {
  const limitBy = given.limitBy === null ? much.none : { limit_by_label_key: given.limitBy };
  const selectors = [
    { ...much.selector, control_point: 'c', label_matcher: { match_labels: given.matched } },
    { control_point: 'c', label_matcher: { match_list: [{ key: 'team', operator: 'Exists' }] } },
  ];
  const parameters = { ...given.parameters, ...much.parameters };
  const scheduler = {
    ...much.scheduler,
    fairness_label_key: given.fairness,
    workloads: [
      { name: given.name, label_matcher: { match_labels: given.matched }, parameters },
      { label_matcher: { match_labels: { tier: 'a' } }, parameters: much.parameters },
    ],
    default_workload_parameters: parameters,
  };
  // Of limits for each value of a label only numbers are right.
  const max = given.limitBy !== null && much.most === 'auto' ? 5 : much.most;
  const bucket = { bucket_capacity: much.capacity, fill_amount: much.fill };
  const more = much.alerter === null ? {} : { alerter: much.alerter };
  const rateLimiter = { ...much.limiter, ...much.bucket, ...limitBy, interval: much.interval };
  const limiter = {
    ...much.limiter,
    ...limitBy,
    max_inflight_duration: much.inflight,
    per_label: keys(
      Object.fromEntries(given.perLabel.map((key, index) => [key, much.perLabel[index]])),
    ),
  };
  const over = { name: 'p', block: keys({ ...bucket, selectors, ...more }) };
  const document = {
    quota: () => quotaValues({ ...over, limiter: keys(rateLimiter), scheduler: keys(scheduler) }),
    rate: () => rateValues({ ...over, limiter: keys(rateLimiter) }),
    concurrency: () =>
      values({
        name: 'p',
        block: keys({ max_concurrency: max, selectors, ...more }),
        limiter: keys(limiter),
        scheduler: keys(scheduler),
      }),
    limit: () =>
      limitValues({
        name: 'p',
        block: keys({ max_concurrency: max, selectors, ...more }),
        limiter: keys(limiter),
      }),
  }[given.kind]();
  return much.uri === null ? document : Object.assign({ uri: much.uri }, document);
}

const labelsOf = fc.dictionary(label, fc.constantFrom('a', 'b', ''), { noNullPrototype: true });

test('documents that differ in their amounts alone have one structure and give every request one queue', () => {
  const reversed = (record: Fields) => Object.fromEntries(Object.entries(record).reverse());
  let versions = 0;
  fc.assert(
    fc.property(shape, amounts, amounts, fc.array(labelsOf), (given, before, after, callers) => {
      const old = parsePolicy(documentOf(given, before));
      const changed = parsePolicy(documentOf(given, after, reversed));
      expect(changed.structure).toBe(old.structure);
      if (changed.version !== old.version) versions += 1;
      for (const labels of callers) {
        const request = { controlPoint: 'c', labels, tokensEstimate: 5, pool: 'mistral' };
        const [first, second] = [old, changed].map((policy) => schedule([policy], request));
        expect(second?.queue).toBe(first?.queue);
        expect(second?.cost).toBe(first?.cost);
        expect(second?.rates).toEqual(first?.rates);
      }
    }),
    { numRuns: 300 },
  );
  expect(versions).toBeGreaterThan(200);
});

test('documents of different shapes never share a structure', () => {
  let differing = 0;
  fc.assert(
    fc.property(shape, shape, amounts, (one, other, much) => {
      const [first, second] = [one, other].map((given) => parsePolicy(documentOf(given, much)));
      // With the same amounts, whatever differs in the documents is structure.
      if (first?.version === second?.version) expect(first?.structure).toBe(second?.structure);
      else {
        differing += 1;
        expect(first?.structure).not.toBe(second?.structure);
      }
    }),
    { numRuns: 300 },
  );
  expect(differing).toBeGreaterThan(100);
});

const paid = (name: string, parameters: Fields) => ({
  workloads: [{ name, label_matcher: { match_labels: { tier: 'paid' } }, parameters }],
});

test.each<[string, unknown, unknown]>([
  ['the name', values({ name: 'a' }), values({ name: 'b' })],
  ['the blueprint', quotaValues({ name: 'a' }), rateValues({ name: 'a' })],
  [
    'the control point',
    values({ block: { selectors: [{ control_point: 'a' }] } }),
    values({ block: { selectors: [{ control_point: 'b' }] } }),
  ],
  [
    'a label that is named like an amount',
    values({ scheduler: { workloads: [{ label_matcher: { match_labels: { uri: 'a' } } }] } }),
    values({ scheduler: { workloads: [{ label_matcher: { match_labels: { uri: 'b' } } }] } }),
  ],
  [
    'the keys of per_label',
    values({ limiter: { per_label: { a: 1 } } }),
    values({ limiter: { per_label: { b: 1 } } }),
  ],
  ['that there is a per_label', values(), values({ limiter: { per_label: { a: 1 } } })],
  [
    'limit_by_label_key',
    quotaValues({ limiter: { limit_by_label_key: 'a' } }),
    quotaValues({ limiter: { limit_by_label_key: 'b' } }),
  ],
  [
    'the fairness label',
    quotaValues({ scheduler: { fairness_label_key: 'a' } }),
    quotaValues({ scheduler: { fairness_label_key: 'b' } }),
  ],
  [
    'the name of a workload',
    values({ scheduler: paid('a', {}) }),
    values({ scheduler: paid('b', {}) }),
  ],
  [
    'the priority of a workload',
    values({ scheduler: paid('a', { priority: 2 }) }),
    values({ scheduler: paid('a', { priority: 3 }) }),
  ],
  [
    'the tokens of a workload',
    values({ scheduler: paid('a', { tokens: 2 }) }),
    values({ scheduler: paid('a', { tokens: 3 }) }),
  ],
  [
    'the tokens label of a rate limit',
    rateValues(),
    rateValues({ block: { request_parameters: { tokens_label_key: 'tokens' } } }),
  ],
])('the structure says %s', (_what, before, after) => {
  expect(parsePolicy(after).structure).not.toBe(parsePolicy(before).structure);
});

test('a first queue timeout or alerter is no other structure, though it brings a mapping with it', () => {
  const bare = values();
  const patient = values({
    block: { alerter: { alert_name: 'slow' } },
    scheduler: { default_workload_parameters: { queue_timeout: '5s' }, workloads: [] },
  });
  expect(parsePolicy(patient).structure).toBe(parsePolicy(bare).structure);
  expect(parsePolicy(patient).version).not.toBe(parsePolicy(bare).version);
  expect(parsePolicy(bare).structure).toMatch(/^[0-9a-f]{16}$/);
});

test('the flat form has the structure of what it stands for, and a version of its own', () => {
  const keys = { priority_label_key: 'tier', limit_by_label_key: 'user_id' };
  const flat = parsePolicy(flatValues(keys));
  const nested = parsePolicy({
    blueprint: 'concurrency-scheduling/base',
    policy: {
      policy_name: 'flat',
      concurrency_scheduler: {
        max_concurrency: 9,
        selectors: [{ control_point: 'mistral-prompt', service: 'any' }],
        concurrency_limiter: { max_inflight_duration: '1s', limit_by_label_key: 'user_id' },
        scheduler: { priority_label_key: 'tier' },
      },
    },
  });
  expect(flat.structure).toBe(nested.structure);
  expect(flat.version).not.toBe(nested.version);
  const other = parsePolicy(flatValues({ ...keys, workload_label_key: 'tier' }));
  expect(other.structure).not.toBe(flat.structure);
});
