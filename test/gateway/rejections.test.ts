/** What a client is told when a limiter refused its request: whose limit it was, and of what kind. */
import { expect, test } from 'vitest';
import { rejection } from '../../src/gateway/rejections.ts';
import { parsePolicy, schedule } from '../../src/policy/index.ts';
import { limitValues, rateValues } from './policies.ts';
import { configOf } from './world.ts';

const limit = limitValues({
  name: 'slots',
  perLabel: { user_id: 2 },
  request: { denied_response_status_code: 503 },
});
const rate = rateValues({
  name: 'rate',
  capacity: 1,
  fill: 1,
  interval: '1s',
  request: { denied_response_status_code: 509 },
});

async function refusalBy(limiter: string, policies: readonly unknown[] = [limit, rate]) {
  const controlPoint = 'mistral-prompt';
  const request = { controlPoint, labels: { user_id: 'u1' }, tokensEstimate: 1 };
  const plan = schedule(policies.map(parsePolicy), request);
  const config = await configOf({});
  const rejected = { status: 'rejected', reason: 'rate_limited', limiter } as const;
  return rejection(rejected, { config, controlPoint, plan });
}

test('a limiter that refuses is a concurrency limit, with the status of its policy', async () => {
  expect(await refusalBy('slots')).toMatchObject({
    code: 'rate_limited',
    message: 'the concurrency limit of policy slots is used up',
    httpStatus: 503,
  });
  const { message } = await refusalBy('slots.user_id=u1');
  expect(message).toBe('the concurrency limit of policy slots for its user_id is used up');
  // That of the code, 429, where its policy names none.
  const plain = await refusalBy('limit', [limitValues({}), rate]);
  expect(plain).toMatchObject({ code: 'rate_limited', httpStatus: undefined });
});

test('a bucket is a rate limit, with its own', async () => {
  expect(await refusalBy('rate')).toMatchObject({
    code: 'rate_limited',
    message: 'the rate limit of policy rate is used up',
    httpStatus: 509,
  });
});
