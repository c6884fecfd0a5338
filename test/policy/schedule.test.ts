import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SluiceError } from '../../src/errors.ts';
import { parsePolicy, parseQueueKey, type Request, schedule } from '../../src/policy/index.ts';
import { hostileTexts, values } from './support.ts';

const policy = parsePolicy(values({ limiter: { per_label: { user_id: 2 } } }));
const impatient = parsePolicy(
  values({
    scheduler: {
      default_workload_parameters: { queue_timeout: '20s' },
      workloads: [
        {
          name: 'paid',
          label_matcher: { match_labels: { tier: 'paid' } },
          parameters: { priority: 10, tokens: 50, queue_timeout: '5s' },
        },
        { name: 'rest', label_matcher: {}, parameters: { priority: 0.5 } },
      ],
    },
  }),
);

function request(over: Partial<Request> = {}): Request {
  return { controlPoint: 'mistral-prompt', labels: {}, tokensEstimate: 300, ...over };
}

function refusedParam(over: Partial<Request>): string | undefined {
  try {
    schedule([policy], request(over));
  } catch (error) {
    if (error instanceof SluiceError && error.code === 'invalid_request') return error.param;
    throw error;
  }
  throw new Error('nothing was refused');
}

test('a request with all its labels gets its place, its cost and its limiters', () => {
  const labels = { priority: '5', tokens: '120', workload: 'chat', user_id: 'a/b' };
  expect(schedule([policy], request({ labels, pool: 'mistral' }))).toEqual({
    policy: 'mistral',
    workload: 'chat',
    priority: 5,
    fairnessKey: 'a/b',
    cost: 120,
    limiters: ['mistral.user_id=a%2Fb', 'pool:mistral', 'mistral'],
    refusing: [],
    rates: [],
    queue: 'mistral/chat@5/a%2Fb/mistral.user_id=a%2Fb,pool:mistral,mistral',
    queueTimeoutMs: undefined,
    maxInflightMs: 60_000,
    queueLimits: {},
    alerting: [],
    defaulted: [],
  });
});

test('missing and empty labels fall back to the defaults and are named', () => {
  for (const labels of [{}, { priority: '', tokens: '', workload: '', user_id: '' }]) {
    expect(schedule([policy], request({ labels }))).toMatchObject({
      workload: 'default',
      priority: 1,
      fairnessKey: '',
      cost: 300,
      limiters: ['mistral'],
      queue: 'mistral/default@1//mistral',
      defaulted: ['workload', 'priority', 'user_id', 'tokens'],
    });
  }
});

test('a control point without a policy is not limited, except by the pool of a prompt', () => {
  const expected = { policy: '-', cost: 300, maxInflightMs: undefined, queueTimeoutMs: undefined };
  const flow = schedule([policy], request({ controlPoint: 'other' }));
  expect(flow).toMatchObject({ ...expected, limiters: [], queue: '-/default@1//' });
  const prompt = schedule([policy], request({ controlPoint: 'other', pool: 'mistral' }));
  expect(prompt).toMatchObject({ ...expected, limiters: ['pool:mistral'] });
  const header = schedule([], request({ headerPriority: 7, timeoutMs: 900 }));
  expect(header).toMatchObject({ priority: 7, queueTimeoutMs: 900 });
});

test('priority: the header, then the label, then the workload; a label of 0 says nothing', () => {
  const priorityOf = (over: Partial<Request>) => schedule([impatient], request(over)).priority;
  expect(priorityOf({ headerPriority: 3, labels: { priority: '5', tier: 'paid' } })).toBe(3);
  expect(priorityOf({ labels: { priority: '5', tier: 'paid' } })).toBe(5);
  expect(priorityOf({ labels: { priority: '0', tier: 'paid' } })).toBe(10);
  expect(priorityOf({ labels: { tier: 'free' } })).toBe(0.5);
  for (const headerPriority of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, 1e9, 0.09]) {
    expect(refusedParam({ headerPriority })).toBe('Sluice-Priority');
  }
  for (const priority of ['NaN', '-1', 'Infinity', '1e9', '1001', '0.0', 'high', '5\n']) {
    expect(refusedParam({ labels: { priority } })).toBe('labels.priority');
  }
});

test('priorities that are the same number share a queue however they are written', () => {
  const queueOf = (priority: string) => schedule([policy], request({ labels: { priority } })).queue;
  expect(queueOf('5.00')).toBe(queueOf('5'));
  expect(queueOf('0.50')).toContain('@0.5/');
});

test('tokens: the label, then the workload, then the estimate; all from 1 to 1e7', () => {
  const costOf = (over: Partial<Request>) => schedule([impatient], request(over)).cost;
  expect(costOf({ labels: { tokens: '7', tier: 'paid' } })).toBe(7);
  expect(costOf({ labels: { tier: 'paid' } })).toBe(50);
  expect(costOf({})).toBe(300);
  expect(costOf({ tokensEstimate: 0 })).toBe(1);
  expect(costOf({ labels: { tokens: '0' } })).toBe(1);
  for (const tokensEstimate of [Number.NaN, -1, 1e9, 1.5, Number.POSITIVE_INFINITY]) {
    expect(refusedParam({ tokensEstimate })).toBe('tokens');
  }
  for (const tokens of ['NaN', '-1', '1e9', '10000001', '1.5', '9'.repeat(10_240)]) {
    expect(refusedParam({ labels: { tokens } })).toBe('labels.tokens');
  }
});

test('the workload label names the workload, the first match gives its parameters', () => {
  const scheduled = schedule([impatient], request({ labels: { tier: 'paid', workload: 'vip' } }));
  expect(scheduled).toMatchObject({ workload: 'vip', priority: 10, queueTimeoutMs: 5000 });
  expect(schedule([impatient], request({ labels: { tier: 'paid' } })).workload).toBe('paid');
  expect(schedule([impatient], request()).workload).toBe('rest');
});

test("waiting ends at the workload's queue timeout or just before the caller's deadline", () => {
  const patienceOf = (timeoutMs: number) =>
    schedule([impatient], request({ labels: { tier: 'paid' }, timeoutMs })).queueTimeoutMs;
  expect(patienceOf(60_000)).toBe(5000);
  expect(patienceOf(1000)).toBe(990);
  expect(patienceOf(5)).toBe(1);
  for (const timeoutMs of [0, -1, Number.NaN, 1.5, Number.POSITIVE_INFINITY]) {
    expect(refusedParam({ timeoutMs })).toBe('timeout_ms');
  }
});

test('with several policies all limiters apply, the first by name gives the order', () => {
  const b = parsePolicy(values({ name: 'b', limiter: { max_inflight_duration: '30s' } }));
  const a = parsePolicy(
    values({
      name: 'a',
      limiter: { limit_by_label_key: 'tenant' },
      scheduler: { fairness_label_key: 'tenant' },
    }),
  );
  const labels = { tenant: 't1', user_id: 'u1' };
  const expected = {
    policy: 'a',
    fairnessKey: 't1',
    limiters: ['a.tenant=t1', 'pool:mistral', 'b'],
    maxInflightMs: 30_000,
  };
  expect(schedule([b, a], request({ labels, pool: 'mistral' }))).toMatchObject(expected);
  expect(schedule([a, b], request({ labels, pool: 'mistral' }))).toMatchObject(expected);
});

test('a policy with limit_by_label_key lets requests without the label pass, and names it', () => {
  const byTenant = parsePolicy(values({ limiter: { limit_by_label_key: 'tenant' } }));
  const scheduled = schedule([byTenant], request());
  expect(scheduled.limiters).toEqual([]);
  expect(scheduled.defaulted).toContain('tenant');
});

test("a selector's matcher decides whether its policy applies", () => {
  const matcher = {
    match_list: [{ key: 'tier', operator: 'In', values: ['paid', 'trial'] }],
    expression: { not: { label_exists: 'internal' } },
  };
  const paid = parsePolicy(
    values({ block: { selectors: [{ control_point: 'mistral-prompt', label_matcher: matcher }] } }),
  );
  const policyOf = (labels: Record<string, string>) => schedule([paid], request({ labels })).policy;
  expect(policyOf({ tier: 'paid' })).toBe('mistral');
  expect(policyOf({ tier: 'free' })).toBe('-');
  expect(policyOf({ tier: 'paid', internal: '1' })).toBe('-');
});

test('matchers: every operator and expression, with and without the label', () => {
  const cases: [unknown, string][] = [
    [{ match_labels: { a: '1' } }, 'yes no no'],
    [{ match_list: [{ key: 'a', operator: 'In', values: ['1'] }] }, 'yes no no'],
    [{ match_list: [{ key: 'a', operator: 'NotIn', values: ['1'] }] }, 'no yes yes'],
    [{ match_expressions: [{ key: 'a', operator: 'Exists' }] }, 'yes yes no'],
    [{ match_list: [{ key: 'a', operator: 'DoesNotExist' }] }, 'no no yes'],
    [{ expression: { label_exists: 'a' } }, 'yes yes no'],
    [{ expression: { label_equals: { label: 'a', value: '2' } } }, 'no yes no'],
    [{ expression: { not: { label_exists: 'a' } } }, 'no no yes'],
    [
      {
        expression: {
          any: {
            of: [{ label_equals: { label: 'a', value: '1' } }, { not: { label_exists: 'a' } }],
          },
        },
      },
      'yes no yes',
    ],
    [
      {
        expression: {
          all: { of: [{ label_exists: 'a' }, { label_equals: { label: 'a', value: '1' } }] },
        },
      },
      'yes no no',
    ],
    [{ match_labels: { constructor: 'x' } }, 'no no no'],
    [{ expression: { label_exists: 'toString' } }, 'no no no'],
    [{}, 'yes yes yes'],
  ];
  for (const [label_matcher, expected] of cases) {
    const scheduler = { workloads: [{ name: 'hit', label_matcher }], workload_label_key: 'none' };
    const matching = parsePolicy(values({ scheduler }));
    const answers = [{ a: '1' }, { a: '2' }, { b: '1' }].map((labels) =>
      schedule([matching], request({ labels })).workload === 'hit' ? 'yes' : 'no',
    );
    expect(answers.join(' '), JSON.stringify(label_matcher)).toBe(expected);
  }
});

test('a label key that every object inherits is missing until the caller sends it', () => {
  const odd = parsePolicy(
    values({ scheduler: { fairness_label_key: 'constructor', workload_label_key: 'toString' } }),
  );
  expect(schedule([odd], request())).toMatchObject({ workload: 'default', fairnessKey: '' });
  const labels = { constructor: 'c' };
  expect(schedule([odd], request({ labels })).fairnessKey).toBe('c');
});

test('control points that could not be written down are refused', () => {
  for (const controlPoint of ['', 'a\u0001', 'x'.repeat(129), '\ud800']) {
    expect(refusedParam({ controlPoint })).toBe('control_point');
  }
});

test('whatever callers send: a cost from 1 to 1e7, a priority in range and a queue that reads back, or an invalid request', () => {
  const hostile = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 20 }),
    fc.constantFrom(...hostileTexts, '\ud800', 'NaN', '-1', '1e9', 'Infinity', '', '0'),
    fc.double().map(String),
    fc.constant('x'.repeat(10_240)),
  );
  /** Mostly what is right, so that most cases are scheduled; else anything. */
  const mostly = <T>(right: fc.Arbitrary<T>, other: fc.Arbitrary<T>) =>
    fc.oneof({ arbitrary: right, weight: 9 }, { arbitrary: other, weight: 1 });
  const tenths = fc.integer({ min: 1, max: 10_000 }).map((count) => count / 10);
  const tokens = fc.nat(10_000_000);
  const text = fc.string({ unit: 'grapheme', maxLength: 20 });
  const any = fc.record(
    {
      labels: fc.record(
        {
          priority: mostly(tenths.map(String), hostile),
          tokens: mostly(tokens.map(String), hostile),
          workload: fc.oneof(text, hostile),
          user_id: fc.oneof(text, hostile),
          tier: fc.constantFrom('paid', 'free'),
        },
        { requiredKeys: [], noNullPrototype: true },
      ),
      tokensEstimate: mostly(tokens, fc.double()),
      headerPriority: mostly(tenths, fc.double()),
      timeoutMs: mostly(fc.integer({ min: 1, max: 3_600_000 }), fc.double()),
      pool: fc.constantFrom('mistral', 'a,b/c'),
    },
    { requiredKeys: ['labels', 'tokensEstimate'] },
  );
  let scheduledCount = 0;
  fc.assert(
    fc.property(any, fc.subarray([policy, impatient]), (given, policies) => {
      try {
        const scheduled = schedule(policies, { controlPoint: 'mistral-prompt', ...given });
        scheduledCount += 1;
        const { cost, priority, queue, queueTimeoutMs = 1, limiters } = scheduled;
        expect(Number.isInteger(cost) && cost >= 1 && cost <= 10_000_000).toBe(true);
        expect(priority >= 0.1 && priority <= 1000).toBe(true);
        expect(Number.isInteger(queueTimeoutMs) && queueTimeoutMs >= 1).toBe(true);
        expect(parseQueueKey(queue)).toEqual({
          policy: scheduled.policy,
          workload: scheduled.workload,
          priority,
          fairnessKey: scheduled.fairnessKey,
          limiters,
        });
        expect(queue).toMatch(/^[!-~]+$/);
      } catch (error) {
        if (!(error instanceof SluiceError)) throw error;
        expect(error.code).toBe('invalid_request');
        expect(error.param).toBeDefined();
      }
    }),
    { numRuns: 1000 },
  );
  // A property that every case escapes by being refused would show nothing.
  expect(scheduledCount).toBeGreaterThan(300);
});
