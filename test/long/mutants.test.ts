/**
 * Shows that the model and the invariants can fail: each mutant is the Lua with one mistake, and
 * random histories must find it. They begin at one seed, so that they find it each time.
 */

import { expect, test } from 'vitest';
import type { Theme } from '../admission/model/ops.ts';
import { runHistories } from '../admission/model/run.ts';
import { themes } from '../admission/model/themes.ts';

interface Mutant {
  readonly name: string;
  readonly theme: Theme;
  /** What is in the Lua, once or more often, and what takes its place. */
  readonly from: string;
  readonly to: string;
}

const mutants: readonly Mutant[] = [
  {
    name: 'tokens settled twice',
    theme: themes.shares,
    from: 'tree.settle(tree.path(request.queue), request.cost, actual)',
    to: 'tree.settle(tree.path(request.queue), request.cost, actual + actual - request.cost)',
  },
  {
    name: 'a quota keeps tokens that were not used',
    theme: themes.buckets,
    from: 'release(request, request.cost - actual)',
    to: 'release(request, 0)',
  },
  {
    name: 'rate limits keep the tokens of who was never admitted',
    theme: themes.buckets,
    from: 'requests.charge_rates(request, -1)',
    to: '',
  },
  {
    name: 'a rate limit says a moment that is too early',
    theme: themes.buckets,
    from: 'return late + math.ceil((need - state.level) / bucket.fill)',
    to: 'return late + math.floor((need - state.level) / bucket.fill)',
  },
  {
    name: 'a bucket fills from the first draw on, whatever its rule',
    theme: themes.buckets,
    from: 'bucket.delay and math.ceil(bucket.full / bucket.fill) or 0',
    to: '0',
  },
  {
    name: 'a freed slot wakes nobody',
    theme: themes.slots,
    from: 'if not limiter.bucket then\n      open[limiter.name] = true',
    to: 'if not limiter.bucket then\n      open[limiter.name] = nil',
  },
  {
    name: 'a refill wakes nobody',
    theme: themes.buckets,
    from: "set_score(timers, 'bucket ' .. limiter.name, state.wait_until)",
    to: '',
  },
  {
    name: 'one too many holds a slot',
    theme: themes.slots,
    from: 'limiter.taken >= limiter.limit',
    to: 'limiter.taken > limiter.limit',
  },
  {
    name: 'whoever stands behind one that left has no deadline',
    theme: themes.slots,
    from: 'set_score(timers, id, deadline)\n  if deadline <= now_ms then',
    to: 'if false then',
  },
  {
    name: 'a charge that comes back lowers tags that stand',
    theme: themes.prompts,
    from: 'child.is_key and child.waiting > 0',
    to: 'false',
  },
  {
    name: 'what is held of a quota stays behind when its request is keyed anew',
    theme: themes.changes,
    from: 'give_back_all(limiters.only_of(from, to), request.cost)',
    to: 'give_back_all(limiters.only_of(from, to), 0)',
  },
  {
    name: 'a quota is not held for who is first',
    theme: themes.buckets,
    from: 'return state_of(limiter).wait_until > 0',
    to: 'return state_of(limiter).wait_until > now_ms + 2000',
  },
  {
    name: 'a quota stays held for who is gone',
    theme: themes.buckets,
    from: 'buckets.held_for(limiter) == request.id',
    to: 'false',
  },
  {
    name: 'a workload that was passed does not begin anew',
    theme: themes.shares,
    from: 'workload.start > tree.node(path.policy).v then',
    to: 'true then',
  },
  {
    name: 'who was parked comes back with turns saved up',
    theme: themes.slots,
    from: 'child.start = child.start + parent.v - child.parked',
    to: '',
  },
  {
    name: 'who stood blocked comes back with turns saved up',
    theme: themes.shares,
    from: 'parent.v > child.seen',
    to: 'false',
  },
  {
    name: 'keys are compared by their cheapest heads',
    theme: themes.slots,
    from: 'if head and head.sequence < state.sequence then',
    to: 'if head then',
  },
  {
    name: 'a prompt that nobody began stays charged',
    theme: themes.prompts,
    from: 'requests.enqueue(request, request.cost)',
    to: 'tree.settle(tree.path(request.queue), 1, 1)\n  requests.enqueue(request)',
  },
  {
    name: 'the replica that failed a prompt gets it again',
    theme: themes.prompts,
    from: 'failed[told.replica] = true',
    to: '',
  },
  {
    name: 'a worker that stops is taken for a failure of its replica',
    theme: themes.prompts,
    from: 'if told.failed_there then',
    to: 'if told.replica then',
  },
  {
    name: 'a prompt burns its attempts where it failed',
    theme: themes.prompts,
    from: 'if best and best.failed and has_other and not request.has_waited then',
    to: 'if false then',
  },
  {
    name: 'who waits for another replica than those that failed it waits for good',
    theme: themes.prompts,
    from: 'offer_deferred(request.pool)',
    to: '',
  },
  {
    name: 'a replica in its trial gets all that it takes',
    theme: themes.prompts,
    from: 'most = replica.trial and 0 or math.min(most, taken + 1)',
    to: 'most = replica.max_inflight',
  },
  {
    name: 'what runs at a replica that drains counts against the others',
    theme: themes.prompts,
    from: '+ taken + room(replica, taken)',
    to: '+ (is_serving(replica) and taken or 0) + room(replica, taken)',
  },
  {
    name: 'one prompt that breaks off takes its replica down',
    theme: themes.prompts,
    from: 'replica.strikes < MOST_STRIKES',
    to: 'false',
  },
  {
    name: 'a replica that fails again rests no longer',
    theme: themes.prompts,
    from: 'rest_ms * 2 ^ (replica.openings - 1)',
    to: 'rest_ms',
  },
  {
    name: 'a replica that is removed takes its prompts with it',
    theme: themes.prompts,
    from: 'if capacity.taken(id) == 0 then',
    to: 'if true then',
  },
  {
    name: 'what drains at its deadline goes on where it is',
    theme: themes.prompts,
    from: 'if roster.on_time(id, grace_until) then',
    to: 'if roster.on_time(id, grace_until) and false then',
  },
  {
    name: 'a heartbeat is not heard',
    theme: themes.prompts,
    from: 'requests.set_timer(request, kept_until)',
    to: '',
  },
  {
    name: 'a flow ends with its gateway, whoever has heard of it',
    theme: { ...themes.prompts, prompts: 20 },
    from: 'if request.owner then\n    requests.disown(request)',
    to: 'if false then',
  },
  {
    name: 'a flow whose heartbeat stopped holds its slots',
    theme: { ...themes.prompts, prompts: 20 },
    from: 'request.lease_until or request.end_by, request.end_by',
    to: 'request.end_by',
  },
  {
    name: 'a limit that refuses lets wait',
    theme: themes.slots,
    from: 'check_refusing(request, refusing) or ',
    to: '',
  },
  {
    name: 'who holds slots is not keyed anew in the tree',
    theme: themes.changes,
    from: 'tree.move_held(from, to)',
    to: '',
  },
  {
    name: 'who waits is admitted while requests are keyed anew',
    theme: themes.changes,
    from: "return read(meta, 'rekeying') ~= false",
    to: 'return false',
  },
  {
    name: 'a limit that rises wakes only who waits at its own gate',
    theme: themes.slots,
    from: "add_due('after ' .. limit_key .. '= ' .. limit_key)",
    to: '',
  },
];

for (const { name, theme, from, to } of mutants) {
  test(`notices: ${name}`, async () => {
    let isApplied = false;
    const patch = (_step: string, source: string) => {
      isApplied ||= source.includes(from);
      return source.replaceAll(from, to);
    };
    const runs = runHistories({ theme, runs: 1_000, patch, shrinks: false, seed: 3 });
    const failure = await runs.catch((error: unknown) => error);
    expect(isApplied, 'the Lua has changed: the mutant has to follow').toBe(true);
    expect(String(failure)).toContain('SLUICE_TEST_SEED');
  }, 120_000);
}
