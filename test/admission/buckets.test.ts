/** Rate limits and quotas: exact times, nothing bypassed, nothing used by who is not admitted. */

import { expect, test } from 'vitest';
import { domainKey } from '../../src/admission/keys.ts';
import { newWorld, policyDocument, type World } from './world.ts';

const second = 1_000;

/** A rate-limiting values file on control point `prompt`. */
function rateDocument(fields: {
  name?: string;
  capacity: number;
  fill: number;
  interval?: string;
  label?: string;
  tokens?: string;
  even?: boolean;
  delay?: boolean;
}): object {
  return {
    blueprint: 'rate-limiting/base',
    policy: {
      policy_name: fields.name ?? 'rate',
      rate_limiter: {
        bucket_capacity: fields.capacity,
        fill_amount: fields.fill,
        parameters: {
          interval: fields.interval ?? '10s',
          continuous_fill: fields.even ?? true,
          delay_initial_fill: fields.delay ?? false,
          ...(fields.label && { limit_by_label_key: fields.label }),
        },
        ...(fields.tokens && { request_parameters: { tokens_label_key: fields.tokens } }),
        selectors: [{ control_point: 'prompt' }],
      },
    },
  };
}

/** A quota-scheduling values file on control point `prompt`. */
function quotaDocument(fields: { capacity: number; fill: number; label?: string }): object {
  return {
    blueprint: 'quota-scheduling/base',
    policy: {
      policy_name: 'quota',
      quota_scheduler: {
        bucket_capacity: fields.capacity,
        fill_amount: fields.fill,
        rate_limiter: {
          interval: '10s',
          ...(fields.label && { limit_by_label_key: fields.label }),
        },
        scheduler: {
          priority_label_key: 'priority',
          tokens_label_key: 'tokens',
          workload_label_key: 'workload',
          fairness_label_key: 'user_id',
        },
        selectors: [{ control_point: 'prompt' }],
      },
    },
  };
}

const limited = (ms: number, limiter = 'rate') => ({
  status: 'rejected',
  reason: 'rate_limited',
  retry_after_ms: ms,
  limiter,
});
const admitted = { status: 'accepted', state: 'admitted' };

test('a rate limit refuses at once, with the exact time of the refill', async () => {
  const world = await newWorld();
  await world.policies(rateDocument({ capacity: 2, fill: 1, interval: '10s' }));
  expect(await world.submit({})).toEqual(admitted);
  expect(await world.submit({})).toEqual(admitted);
  expect(await world.submit({})).toEqual(limited(10 * second));
  world.nowMs += 9_999;
  expect(await world.submit({})).toEqual(limited(1));
  world.nowMs += 1;
  expect(await world.submit({})).toEqual(admitted);
  expect(await world.submit({})).toEqual(limited(10 * second));
});

test('a bucket that fills in steps fills at the end of each interval', async () => {
  const world = await newWorld();
  await world.policies(rateDocument({ capacity: 4, fill: 3, even: false }));
  for (let i = 0; i < 4; i++) expect(await world.submit({})).toEqual(admitted);
  world.nowMs += 4 * second;
  expect(await world.submit({})).toEqual(limited(6 * second));
  world.nowMs += 6 * second;
  for (let i = 0; i < 3; i++) expect(await world.submit({})).toEqual(admitted);
  expect(await world.submit({})).toEqual(limited(10 * second));
});

test('with a delay it fills only after the time that it takes to fill', async () => {
  const world = await newWorld();
  await world.policies(rateDocument({ capacity: 2, fill: 1, delay: true }));
  expect(await world.submit({})).toEqual(admitted);
  expect(await world.submit({})).toEqual(admitted);
  expect(await world.submit({})).toEqual(limited(30 * second));
});

test('each value of a label has a bucket; one without the label passes', async () => {
  const world = await newWorld();
  await world.policies(rateDocument({ capacity: 1, fill: 1, label: 'user_id' }));
  expect(await world.submit({ user: 'a' })).toEqual(admitted);
  expect(await world.submit({ user: 'a' })).toEqual(limited(10 * second, 'rate.user_id=a'));
  expect(await world.submit({ user: 'b' })).toEqual(admitted);
  expect(await world.submit({})).toEqual(admitted);
});

test('all limits are asked before any is charged, and a refusal charges none', async () => {
  const world = await newWorld();
  await world.policies(
    rateDocument({ name: 'r1', capacity: 1, fill: 1 }),
    rateDocument({ name: 'r2', capacity: 2, fill: 1, interval: '60s' }),
  );
  expect(await world.submit({})).toEqual(admitted);
  // r1 is empty: r2 keeps its second token through every refusal.
  for (let i = 0; i < 3; i++) expect(await world.submit({})).toEqual(limited(10 * second, 'r1'));
  world.nowMs += 10 * second;
  expect(await world.submit({})).toEqual(admitted);
  expect(await world.submit({})).toMatchObject({ reason: 'rate_limited', limiter: 'r2' });
});

test('who is never admitted has used nothing; who was admitted has', async () => {
  const world = await newWorld();
  await world.policies(policyDocument({ max: 1 }), rateDocument({ capacity: 3, fill: 1 }));
  const first = await world.add();
  const [cancelled, late] = [await world.add(), await world.add({ timeoutMs: 1_000 })];
  expect(await world.submit({})).toMatchObject({ reason: 'rate_limited' });
  await world.admission.cancel(cancelled, 'test');
  world.nowMs += 1_000;
  await world.admission.sweep();
  expect(await world.state(late)).toBe('rejected');
  await world.end(first);
  // Two were given back, and one second has added a tenth.
  expect(await world.submit({})).toEqual(admitted);
  expect(await world.submit({})).toMatchObject({ status: 'accepted', state: 'waiting' });
  expect(await world.submit({})).toEqual(limited(9 * second));
});

test('a rate limit charges the tokens of a label; more than it can ever hold is refused for good', async () => {
  const world = await newWorld();
  await world.policies(rateDocument({ capacity: 100, fill: 100, tokens: 'size' }));
  expect(await world.submit({ labels: { size: '80' } })).toEqual(admitted);
  expect(await world.submit({ labels: { size: '30' } })).toEqual(limited(second));
  expect(await world.submit({ labels: { size: '101' } })).toEqual({
    status: 'rejected',
    reason: 'over_capacity',
    limiter: 'rate',
  });
});

async function admittedOf(world: World, names: Record<string, string>): Promise<string[]> {
  return (await world.admitted()).map((id) => names[id] ?? id);
}

test('a quota lets wait, and the first in line goes at the exact time of the refill', async () => {
  const world = await newWorld();
  await world.policies(quotaDocument({ capacity: 100, fill: 100 }));
  const first = await world.add({ user: 'a', cost: 100 });
  await world.end(first);
  const second = await world.add({ user: 'a', cost: 50 });
  expect(world.due).toBe(world.nowMs + 5_000);
  expect(await world.state(second)).toBe('waiting');
  world.nowMs += 4_999;
  await world.admission.sweep();
  expect(await world.state(second)).toBe('waiting');
  world.nowMs += 1;
  await world.admission.sweep();
  expect(await world.state(second)).toBe('admitted');
  await world.check();
});

test('the first in line is not passed by a cheaper one behind it; who needs other limits is', async () => {
  const world = await newWorld();
  await world.policies(
    quotaDocument({ capacity: 100, fill: 100 }),
    policyDocument({ max: 50, controlPoint: 'other' }),
  );
  await world.end(await world.add({ user: 'a', cost: 90 }));
  const names: Record<string, string> = {};
  names[await world.add({ user: 'a', cost: 80 })] = 'costly';
  names[await world.add({ user: 'a', cost: 5 })] = 'cheap';
  names[await world.add({ controlPoint: 'other' })] = 'other';
  expect(await admittedOf(world, names)).toEqual(['other']);
  await world.check();
  // Gone, it no longer keeps the quota for itself.
  const [costly = ''] = Object.keys(names);
  await world.admission.cancel(costly, 'test');
  expect(await admittedOf(world, names)).toEqual(['cheap', 'other']);
  await world.check();
});

test('a quota is settled with the actual tokens, and pays back what was never used', async () => {
  const world = await newWorld();
  await world.policies(quotaDocument({ capacity: 100, fill: 10 }));
  const cheap = await world.add({ user: 'a', cost: 100 });
  const next = await world.add({ user: 'a', cost: 60 });
  expect(await world.state(next)).toBe('waiting');
  await world.end(cheap, 40);
  expect(await world.state(next)).toBe('admitted');
  // Cost twice what it was charged: the quota is in debt.
  await world.end(next, 120);
  const last = await world.add({ user: 'a', cost: 10 });
  expect(world.due).toBe(world.nowMs + 70 * second);
  expect(await world.state(last)).toBe('waiting');
});

test('what a quota can never pay is refused, also when it was lowered since', async () => {
  const world = await newWorld();
  await world.policies(quotaDocument({ capacity: 100, fill: 100 }));
  expect(await world.submit({ cost: 101 })).toMatchObject({
    reason: 'over_capacity',
    limiter: 'quota',
  });
  await world.end(await world.add({ cost: 100 }));
  const waits = await world.add({ cost: 90 });
  await world.policies(quotaDocument({ capacity: 50, fill: 100 }));
  for (let i = 0; i < 3; i++) await world.admission.sweep();
  expect(await world.state(waits)).toBe('rejected');
  await world.check();
});

test('a quota that is raised or taken away lets its waiters go', async () => {
  const world = await newWorld();
  await world.policies(quotaDocument({ capacity: 100, fill: 1 }));
  await world.end(await world.add({ cost: 100 }));
  const [first, second_] = [await world.add({ cost: 100 }), await world.add({ cost: 100 })];
  await world.policies(quotaDocument({ capacity: 100, fill: 100_000 }));
  world.nowMs += 10;
  await world.admission.sweep();
  expect(await world.state(first)).toBe('admitted');
  expect(await world.state(second_)).toBe('waiting');
  const { version } = world;
  expect(await world.admission.removePolicy('quota', version)).toMatchObject({ status: 'in_use' });
  await world.check();
});

test('a quota that was held, taken away and set again is held for nobody', async () => {
  const world = await newWorld();
  const quota = quotaDocument({ capacity: 100, fill: 1 });
  await world.policies(quota);
  await world.add({ cost: 100 });
  const waits = await world.add({ cost: 50 });
  await world.policies(policyDocument({ max: 10, name: 'quota' }));
  expect(await world.state(waits)).toBe('admitted');
  // Past the refill that it was held for.
  await world.pass(600 * second);
  await world.policies(quota);
  expect(await world.state(await world.add({ cost: 1 }))).toBe('admitted');
  await world.check();
});

test('tokens move with a request that is keyed anew, there and back', async () => {
  const world = await newWorld();
  const quota = { capacity: 200, fill: 1 };
  await world.policies(quotaDocument(quota));
  const held = await world.add({ user: 'a', cost: 90 });
  await world.policies(quotaDocument({ ...quota, label: 'user_id' }));
  await world.policies(quotaDocument(quota));
  await world.end(held, 90);
  expect(await world.state(await world.add({ user: 'b', cost: 110 }))).toBe('admitted');
  expect(await world.state(await world.add({ user: 'b', cost: 1 }))).toBe('waiting');
  await world.check();
});

test('labels that are not used any more leave nothing behind', async () => {
  const world = await newWorld();
  await world.policies(
    policyDocument({ max: 1_000, perLabel: { user_id: 2 } }),
    rateDocument({ capacity: 2, fill: 2, label: 'user_id' }),
  );
  for (let i = 0; i < 200; i++) await world.end(await world.add({ user: `u${i}` }));
  expect(await world.redis.hlen(domainKey(world.domain, 'buckets'))).toBe(200);
  expect(await world.redis.hlen(domainKey(world.domain, 'in_flight'))).toBe(0);
  world.nowMs += 10 * second;
  // A few that have filled up are forgotten with each draw.
  for (let i = 0; i < 26; i++) await world.end(await world.add({ user: 'other' }).catch(() => ''));
  world.nowMs += 10 * second;
  expect(await world.redis.hlen(domainKey(world.domain, 'buckets'))).toBeLessThan(200);
});
