/** An alert fires while fewer than 90 % are accepted, and for its resolve timeout after that. */
import { expect, test } from 'vitest';
import type { PolicyAlerter } from '../../src/diagnostics.ts';
import { PolicyAlerts } from '../../src/telemetry/policy-alerts.ts';

function alerter(policy: string, resolveMs: number): PolicyAlerter {
  return { policy, name: policy, severity: 'info', resolveMs, labels: {} };
}

/** Alerts of the policies `a` (5 s to resolve) and `b` (none), on a clock of the test. */
function newAlerts() {
  let now = 1_000_000;
  const alerts = new PolicyAlerts(() => now);
  alerts.onSample({ alerters: [alerter('a', 5_000), alerter('b', 0)] });
  return {
    alerts,
    pass: (ms: number) => {
      now += ms;
    },
    decide: (policy: string, accepted: number, refused: number) => {
      const decide = (is: boolean) => alerts.onDecision({ policy, accepted: is });
      for (let count = 0; count < accepted; count += 1) decide(true);
      for (let count = 0; count < refused; count += 1) decide(false);
    },
    firing: (policy: string) =>
      alerts.read().find((alert) => alert.alerter.policy === policy)?.isFiring,
    ratio: (policy: string) =>
      alerts.read().find((alert) => alert.alerter.policy === policy)?.acceptedRatio,
  };
}

test('without decisions there is no ratio, and nothing fires', () => {
  const { alerts } = newAlerts();
  expect(alerts.read().map(({ isFiring, acceptedRatio }) => [isFiring, acceptedRatio])).toEqual([
    [false, undefined],
    [false, undefined],
  ]);
});

test('it fires below 90 %, not at it', () => {
  const { decide, firing, ratio } = newAlerts();
  decide('a', 9, 1);
  decide('b', 89, 11);
  expect([firing('a'), ratio('a')]).toEqual([false, 0.9]);
  expect([firing('b'), ratio('b')]).toEqual([true, 0.89]);
});

test('what is older than a minute no longer counts, and what is younger does', () => {
  const { decide, pass, firing, ratio } = newAlerts();
  decide('b', 1, 1);
  pass(30_000);
  decide('b', 1, 0);
  pass(29_999);
  expect([firing('b'), ratio('b')]).toEqual([true, 2 / 3]);
  pass(1);
  expect([firing('b'), ratio('b')]).toEqual([false, 1]);
  pass(30_000);
  expect([firing('b'), ratio('b')]).toEqual([false, undefined]);
});

test('it stays for its resolve timeout after enough are accepted again', () => {
  const { decide, pass, firing } = newAlerts();
  decide('a', 8, 1);
  pass(2_000);
  // The ninth of ten: up to now it fired.
  decide('a', 1, 0);
  pass(4_999);
  expect(firing('a')).toBe(true);
  pass(1);
  expect(firing('a')).toBe(false);
});

test('it also stays when the refused fall out of the minute, however late one looks', () => {
  const soon = newAlerts();
  soon.decide('a', 0, 1);
  soon.pass(64_999);
  expect(soon.firing('a')).toBe(true);
  soon.pass(1);
  expect(soon.firing('a')).toBe(false);
  const late = newAlerts();
  late.decide('a', 0, 1);
  late.pass(24 * 3_600_000);
  expect(late.firing('a')).toBe(false);
});

test('a policy whose alerter is gone is forgotten', () => {
  const { alerts, decide, ratio } = newAlerts();
  decide('a', 1, 1);
  decide('b', 1, 1);
  alerts.onSample({ alerters: [alerter('b', 0)] });
  expect(alerts.read().map(({ alerter: { policy } }) => policy)).toEqual(['b']);
  alerts.onSample({ alerters: [alerter('a', 0), alerter('b', 0)] });
  expect([ratio('a'), ratio('b')]).toEqual([undefined, 0.5]);
});
