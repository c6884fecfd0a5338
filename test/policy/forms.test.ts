/** Policies in the flat form, and files in which something is still to be filled in. */
import { expect, test } from 'vitest';
import { limitsOf, nameIn, parsePolicy } from '../../src/policy/index.ts';
import { flatValues, limitValues, problemsIn, values } from './support.ts';

test('the flat form is a policy that limits concurrency and orders who waits', () => {
  const given = flatValues({
    limit_by_label_key: '',
    priority_label_key: 'priority',
    tokens_label_key: 'tokens',
    workload_label_key: 'workload',
  });
  const policy = parsePolicy(given);
  expect(policy).toMatchObject({
    kind: 'concurrency',
    name: 'flat',
    selectors: [{ controlPoint: 'mistral-prompt' }],
    maxConcurrency: 2,
    perLabel: {},
    maxInflightMs: 60_000,
    scheduler: {
      priorityLabelKey: 'priority',
      tokensLabelKey: 'tokens',
      workloadLabelKey: 'workload',
      workloads: [],
      default: { priority: 1 },
    },
  });
  expect(policy).not.toHaveProperty('limitByLabelKey');
  expect(policy.document).toEqual(given);
  expect(limitsOf(policy)).toEqual({ flat: 2 });
});

test('it says what the values file says that it stands for', () => {
  const keys = { priority_label_key: 'priority', workload_label_key: 'workload' };
  const limit = { limit_by_label_key: 'user_id' };
  const flat = parsePolicy(flatValues({ ...keys, ...limit }));
  const nested = parsePolicy({
    blueprint: 'concurrency-scheduling/base',
    policy: {
      policy_name: 'flat',
      concurrency_scheduler: {
        max_concurrency: 2,
        selectors: [{ control_point: 'mistral-prompt' }],
        concurrency_limiter: { max_inflight_duration: '60s', ...limit },
        scheduler: keys,
      },
    },
  });
  expect(flat).toEqual({ ...nested, version: flat.version, document: flat.document });
});

test('its problems are named by its own fields', () => {
  const wrong = { max_inflight_duration: '60', max_concurrency: 0, prority_label_key: 'p' };
  expect(problemsIn({ ...wrong, policy_name: '-' })).toEqual({
    policy_name: expect.stringContaining('must be a name'),
    max_inflight_duration: expect.stringContaining('must be a duration'),
    max_concurrency: expect.stringContaining('must be a whole number'),
    prority_label_key: 'is not a field; did you mean `priority_label_key`?',
    control_point: expect.stringContaining('is missing; it must be'),
  });
  expect(problemsIn({ ...flatValues(), selectors: [] })).toEqual({
    selectors: expect.stringContaining('is not a field; the fields here are policy_name,'),
  });
});

test('a document with a blueprint or a policy is a values file, whatever else it has', () => {
  const both = { ...flatValues(), ...(values() as object) };
  expect(Object.keys(problemsIn(both))).toEqual(Object.keys(flatValues()));
  expect(problemsIn({ blueprint: 'concurrency-scheduling/base', policy_name: 'p' })).toEqual({
    policy_name: expect.stringContaining('is not a field'),
    policy: 'is missing; it must be a mapping',
  });
});

test('the name stands where the form has it', () => {
  expect(nameIn(flatValues())).toEqual({ path: 'policy_name', name: 'flat' });
  expect(nameIn(values())).toEqual({ path: 'policy.policy_name', name: 'mistral' });
  for (const document of [null, [], 5, {}, { policy: 5 }]) {
    expect(nameIn(document)).toEqual({ path: 'policy.policy_name', name: undefined });
  }
});

test('what is still to be filled in is said so, once, wherever it stands', () => {
  const placeholder = '__REQUIRED_FIELD__';
  const reason = 'is still the placeholder __REQUIRED_FIELD__; fill it in';
  const file = limitValues({
    block: {
      max_concurrency: placeholder,
      selectors: [{ control_point: placeholder, service: placeholder }],
    },
    limiter: { max_inflight_duration: placeholder },
    name: placeholder,
  });
  const at = 'policy.concurrency_limiter';
  expect(problemsIn(file)).toEqual({
    'policy.policy_name': reason,
    [`${at}.max_concurrency`]: reason,
    [`${at}.selectors[0].control_point`]: reason,
    [`${at}.selectors[0].service`]: reason,
    [`${at}.parameters.max_inflight_duration`]: reason,
  });
  expect(problemsIn(flatValues({ control_point: placeholder, max_concurrency: 0 }))).toEqual({
    control_point: reason,
    max_concurrency: expect.stringContaining('must be a whole number'),
  });
});

test('a policy that Aperture made of a values file is refused as that', () => {
  const made = { apiVersion: 'fluxninja.com/v1alpha1', kind: 'Policy', metadata: {}, spec: {} };
  expect(problemsIn(made)).toEqual({
    '': 'is a policy that Aperture made of a values file: give that file',
  });
});

test('what is in a list that has to be empty is counted', () => {
  const document = values() as { policy: object };
  const policy = { ...document.policy, components: [{}, {}] };
  expect(problemsIn({ ...document, policy })).toEqual({
    'policy.components': 'must be an empty list: Sluice has no circuit components, not a list of 2',
  });
});
