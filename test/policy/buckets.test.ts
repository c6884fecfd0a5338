import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SluiceError } from '../../src/errors.ts';
import {
  limitsOf,
  type Policy,
  parsePolicy,
  parseQueueKey,
  type Request,
  schedule,
} from '../../src/policy/index.ts';
import { hostileTexts, quotaValues, rateValues, values } from './support.ts';

const slots = parsePolicy(values({ name: 'slots', limiter: { per_label: { user_id: 2 } } }));
const quota = parsePolicy(quotaValues());
const rate = parsePolicy(rateValues());
const bucket = { intervalMs: 1000, continuous: true, delayInitialFill: false };

function plan(policies: readonly Policy[], over: Partial<Request> = {}) {
  return schedule(policies, {
    controlPoint: 'mistral-prompt',
    labels: {},
    tokensEstimate: 300,
    ...over,
  });
}

test('a quota is a limit of its policy, or of each value of its label', () => {
  expect(limitsOf(quota)).toEqual({ quota: { ...bucket, capacity: 500, fillAmount: 25 } });
  const each = parsePolicy(quotaValues({ limiter: { limit_by_label_key: 'user_id' } }));
  expect(limitsOf(each)).toEqual({
    'quota.user_id': { ...bucket, capacity: 500, fillAmount: 25 },
  });
  const old = parsePolicy(rateValues({ limiter: { label_key: 'user.id' } }));
  expect(limitsOf(old)).toEqual({ 'rate.user%2Eid': { ...bucket, capacity: 40, fillAmount: 2 } });
});

test('a quota gives the order and takes the cost, but bounds no time in flight', () => {
  const scheduler = {
    workload_label_key: 'workload',
    fairness_label_key: 'user_id',
    default_workload_parameters: { priority: 3, tokens: 70, queue_timeout: '4s' },
    denied_response_status_code: 429,
  };
  const labels = { workload: 'chat', user_id: 'u1' };
  expect(plan([parsePolicy(quotaValues({ scheduler }))], { labels, pool: 'mistral' })).toEqual({
    policy: 'quota',
    workload: 'chat',
    priority: 3,
    fairnessKey: 'u1',
    cost: 70,
    limiters: ['pool:mistral', 'quota'],
    refusing: [],
    rates: [],
    queue: 'quota/chat@3/u1/pool:mistral,quota',
    queueTimeoutMs: 4000,
    maxInflightMs: undefined,
    deniedStatus: 429,
    rateDeniedStatus: undefined,
    queueLimits: {},
    alerting: [],
    defaulted: [],
  });
});

test('the first policy with a scheduler gives the order; slots are taken before quotas', () => {
  const each = { limit_by_label_key: 'user_id' };
  const policies = [
    parsePolicy(values({ name: 'f', limiter: { ...each, max_inflight_duration: '30s' } })),
    parsePolicy(values({ name: 'e', limiter: { per_label: { team: 3, 'a.b': 1 } } })),
    parsePolicy(quotaValues({ name: 'd', limiter: each })),
    parsePolicy(quotaValues({ name: 'c', limiter: each })),
    parsePolicy(quotaValues({ name: 'b' })),
    parsePolicy(rateValues({ name: 'a' })),
  ];
  const labels = { user_id: 'u1', team: 't', 'a.b': '1' };
  const expected = {
    policy: 'b',
    limiters: [
      ...['e.a%2Eb=1', 'e.team=t', 'f.user_id=u1'],
      ...['pool:mistral', 'e'],
      ...['c.user_id=u1', 'd.user_id=u1', 'b'],
    ],
    rates: [{ limiter: 'a', tokens: 1 }],
    maxInflightMs: 30_000,
  };
  expect(plan(policies, { labels, pool: 'mistral' })).toMatchObject(expected);
  expect(plan(policies.toReversed(), { labels, pool: 'mistral' })).toMatchObject(expected);
});

test('rate limits alone give no order: the request waits as under no policy at all', () => {
  expect(plan([rate], { pool: 'mistral' })).toMatchObject({
    policy: '-',
    queue: '-/default@1//pool:mistral',
    cost: 300,
    maxInflightMs: undefined,
    rates: [{ limiter: 'rate', tokens: 1 }],
    defaulted: [],
  });
});

test('rate limits take what the tokens label says, 1 without it, and nothing for 0', () => {
  const request_parameters = { tokens_label_key: 'tokens' };
  const charged = parsePolicy(rateValues({ block: { request_parameters } }));
  const tokensOf = (tokens: string) => plan([charged], { labels: { tokens } }).rates;
  expect(tokensOf('7')).toEqual([{ limiter: 'rate', tokens: 7 }]);
  expect(tokensOf('10000000')).toEqual([{ limiter: 'rate', tokens: 10_000_000 }]);
  expect(tokensOf('0')).toEqual([]);
  expect(tokensOf('')).toEqual([{ limiter: 'rate', tokens: 1 }]);
  expect(plan([charged])).toMatchObject({
    rates: [{ limiter: 'rate', tokens: 1 }],
    defaulted: ['tokens'],
  });
  for (const tokens of ['NaN', '-1', '1e9', '10000001', '1.5', '9'.repeat(10_240)]) {
    expect(() => tokensOf(tokens)).toThrow(
      expect.objectContaining({ code: 'invalid_request', param: 'labels.tokens' }),
    );
  }
});

test('without its label a request passes a quota or rate limit by label, and the label is named', () => {
  const each = { limit_by_label_key: 'user_id' };
  const policies = [
    parsePolicy(quotaValues({ limiter: each })),
    parsePolicy(rateValues({ limiter: each })),
  ];
  expect(plan(policies)).toMatchObject({ limiters: [], rates: [], defaulted: ['user_id'] });
  expect(plan(policies, { labels: { user_id: 'a/b' } })).toMatchObject({
    limiters: ['quota.user_id=a%2Fb'],
    rates: [{ limiter: 'rate.user_id=a%2Fb', tokens: 1 }],
    defaulted: [],
  });
});

test('a refused rate is answered with the status of the first rate limit that names one', () => {
  const denied = (name: string, denied_response_status_code: number) =>
    parsePolicy(
      rateValues({ name, block: { request_parameters: { denied_response_status_code } } }),
    );
  expect(plan([rate, denied('z', 503), denied('y', 403)]).rateDeniedStatus).toBe(403);
  expect(plan([rate, slots]).rateDeniedStatus).toBeUndefined();
});

test('queue limits: the smallest of all at the control point, the own one of the workload', () => {
  const workloads = [
    {
      label_matcher: { match_labels: { tier: 'paid' } },
      parameters: { max_queue_length: 9 },
    },
    { label_matcher: { match_labels: { tier: 'free' } } },
  ];
  const own = { max_queue_length: 50, default_workload_parameters: { max_queue_length: 7 } };
  const policies = [
    parsePolicy(values({ name: 'a', scheduler: { ...own, workloads } })),
    parsePolicy(
      quotaValues({
        name: 'b',
        scheduler: { max_queue_length: 20, default_workload_parameters: { max_queue_length: 1 } },
      }),
    ),
    parsePolicy(quotaValues({ name: 'c' })),
    rate,
  ];
  const limitsFor = (labels: Record<string, string>) => plan(policies, { labels }).queueLimits;
  expect(limitsFor({})).toEqual({ controlPoint: 20, workload: 7 });
  expect(limitsFor({ tier: 'paid' })).toEqual({ controlPoint: 20, workload: 9 });
  expect(limitsFor({ tier: 'free' })).toEqual({ controlPoint: 20 });
  const none = parsePolicy(values({ scheduler: { max_queue_length: 0 } }));
  expect(plan([none]).queueLimits).toEqual({ controlPoint: 0 });
});

test('whatever callers send: limiters in order, whole tokens from 1 and a queue that reads back, or an invalid request', () => {
  const each = { limit_by_label_key: 'user_id' };
  const request_parameters = { tokens_label_key: 'tokens' };
  const all = [
    slots,
    quota,
    rate,
    parsePolicy(quotaValues({ name: 'each.quota', limiter: each })),
    parsePolicy(rateValues({ name: 'each-rate', limiter: each, block: { request_parameters } })),
  ];
  const hostile = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 20 }),
    fc.constantFrom(...hostileTexts, '\ud800', 'NaN', '-1', '1e9', 'Infinity', '', '0'),
    fc.double().map(String),
  );
  const tokens = fc.oneof(
    { arbitrary: fc.nat(10_000_000).map(String), weight: 9 },
    { arbitrary: hostile, weight: 1 },
  );
  const labels = fc.record(
    { tokens, user_id: hostile },
    { requiredKeys: [], noNullPrototype: true },
  );
  let scheduledCount = 0;
  fc.assert(
    fc.property(labels, fc.subarray(all), fc.boolean(), (given, policies, isPrompt) => {
      try {
        const over = { labels: given, ...(isPrompt && { pool: 'mistral' }) };
        const scheduled = plan(policies, over);
        scheduledCount += 1;
        const isQuota = scheduled.limiters.map((limiter) =>
          /quota/.test(limiter.split('=')[0] ?? ''),
        );
        expect(isQuota).toEqual(isQuota.toSorted((a, b) => Number(a) - Number(b)));
        expect(parseQueueKey(scheduled.queue)?.limiters).toEqual(scheduled.limiters);
        expect(new Set(scheduled.limiters).size).toBe(scheduled.limiters.length);
        const known = Object.keys(Object.assign({}, ...policies.map(limitsOf)));
        for (const { limiter, tokens: taken } of scheduled.rates) {
          expect(Number.isInteger(taken) && taken >= 1 && taken <= 10_000_000).toBe(true);
          expect(limiter).toMatch(/^[!-~]+$/);
          expect(known).toContain(limiter.split('=')[0]);
          expect(scheduled.limiters).not.toContain(limiter);
        }
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
