/** Concurrency limits that refuse: what they are, and what a request needs under them. */
import { expect, test } from 'vitest';
import { limitsOf, parsePolicy, type Request, schedule } from '../../src/policy/index.ts';
import { limitValues, quotaValues, rateValues, values } from './support.ts';

function plan(documents: readonly unknown[], over: Partial<Request> = {}) {
  const request = { controlPoint: 'mistral-prompt', labels: {}, tokensEstimate: 300, ...over };
  return schedule(documents.map(parsePolicy), request);
}

test('a limit is slots, for all or for each value of a label', () => {
  const caps = { per_label: { tenant: 2 } };
  const all = parsePolicy(limitValues({ limiter: caps }));
  expect(all).toMatchObject({ kind: 'limit', maxConcurrency: 3, maxInflightMs: 60_000 });
  expect(limitsOf(all)).toEqual({ limit: 3, 'limit.tenant': 2 });
  const each = parsePolicy(limitValues({ limiter: { ...caps, limit_by_label_key: 'user_id' } }));
  expect(limitsOf(each)).toEqual({ 'limit.user_id': 3, 'limit.tenant': 2 });
});

test('its limiters are taken at admission and refuse; it gives no order', () => {
  const caps = { per_label: { user_id: 2 } };
  const labels = { user_id: 'u1', priority: 'high' };
  expect(plan([limitValues({ limiter: caps })], { labels, pool: 'mistral' })).toMatchObject({
    policy: '-',
    priority: 1,
    fairnessKey: '',
    cost: 300,
    limiters: ['limit.user_id=u1', 'pool:mistral', 'limit'],
    refusing: ['limit.user_id=u1', 'limit'],
    rates: [],
    queue: '-/default@1//limit.user_id=u1,pool:mistral,limit',
    maxInflightMs: 60_000,
    queueLimits: {},
  });
});

test('beside a policy that lets wait only its own limiters refuse', () => {
  const scheduling = values({ limiter: { per_label: { user_id: 2 } } });
  const limiting = limitValues({
    limiter: { limit_by_label_key: 'tenant', max_inflight_duration: '5s' },
  });
  const labels = { user_id: 'u1', tenant: 't1' };
  expect(plan([scheduling, limiting, quotaValues()], { labels })).toMatchObject({
    policy: 'mistral',
    limiters: ['limit.tenant=t1', 'mistral.user_id=u1', 'mistral', 'quota'],
    refusing: ['limit.tenant=t1'],
    maxInflightMs: 5_000,
  });
  expect(plan([scheduling], { labels }).refusing).toEqual([]);
});

test('the smallest time in flight counts, of either kind', () => {
  const short = values({ limiter: { max_inflight_duration: '1s' } });
  expect(plan([short, limitValues()]).maxInflightMs).toBe(1_000);
});

test('without its label a request passes', () => {
  const each = limitValues({ limiter: { limit_by_label_key: 'user_id' } });
  expect(plan([each])).toMatchObject({ limiters: [], refusing: [], defaulted: ['user_id'] });
});

test('the status of a refusal is that of the first policy that names one', () => {
  const named = (name: string, status: number) =>
    limitValues({ name, block: { request_parameters: { denied_response_status_code: status } } });
  expect(plan([limitValues()]).limitDeniedStatus).toBe(undefined);
  const several = [rateValues(), named('c', 503), named('b', 509), limitValues({ name: 'a' })];
  expect(plan(several)).toMatchObject({ limitDeniedStatus: 509, rateDeniedStatus: undefined });
});

test('of the policies that apply those with an alerter are named', () => {
  const alerter = { alert_name: 'busy' };
  const elsewhere = { alerter, selectors: [{ control_point: 'elsewhere' }] };
  const several = [
    limitValues({ name: 'c', block: { alerter } }),
    rateValues({ name: 'b' }),
    quotaValues({ name: 'a', block: { alerter: {} } }),
    values({ name: 'd', block: elsewhere }),
  ];
  expect(plan(several).alerting).toEqual([
    { policy: 'a', letsWait: true },
    { policy: 'c', letsWait: false },
  ]);
});

test('an alerter without a name has that of its policy', () => {
  expect(parsePolicy(limitValues({ block: { alerter: {} } })).alerter).toEqual({
    name: 'limit',
    severity: 'info',
    resolveMs: 5_000,
    labels: {},
  });
  expect(parsePolicy(limitValues())).not.toHaveProperty('alerter');
});
