#!lua flags=allow-oom
--[[
replicas: a replica joins, changes, drains or goes, a name service knows others, or a probe has an answer.

KEYS, ARGV: see lib/step.lua.
args: one of put {pool, replica {id, url, protocol, max_inflight, model, template, price, zone, spot,
  credentials, probe (JSON text of {path, post_data, initial_delay_ms, timeout_ms, period_ms,
  success_threshold, failure_threshold}), state, ttl_ms}}, set {pool, source, replicas [the same]} (all
  that this source has), drain {id, deadline_ms (from now; absent for none)}, ready {id}, remove {id}, probed {id, probe
  (its number), ok, reason}.
result: {status: 'done', is_new (put: bool)}, {status: 'full'} where there are as many as there may be,
  {status: 'in_use', pool} where prompts of another pool run at it,
  {status: 'unknown'} for an id that there is not, {status:
  'stale'} for a probe that nobody waits for any more.
Safe to repeat.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests roster admit close

local function change()
  if args.put then
    local before = capacity.replica(args.put.replica.id)
    if not before and roster.is_full() then
      return { status = 'full' }
    end
    if not roster.put(args.put.pool, 'api', args.put.replica) then
      return { status = 'in_use', pool = before.pool }
    end
    return { status = 'done', is_new = not before or before.state == 'leaving' }
  elseif args.set then
    roster.set(args.set.pool, args.set.source, args.set.replicas)
    return { status = 'done' }
  elseif args.probed then
    local probed = args.probed
    return { status = roster.probed(probed.id, probed.probe, probed.ok, probed.reason) and 'done' or 'stale' }
  end
  local replica = capacity.replica((args.drain or args.ready or args.remove).id)
  if not replica or replica.state == 'leaving' then
    return { status = 'unknown' }
  elseif args.ready then
    roster.ready(replica)
  elseif args.drain then
    roster.drain(replica, args.drain.deadline_ms and now_ms + args.drain.deadline_ms)
  else
    roster.remove(replica.id)
  end
  return { status = 'done' }
end

return close(change())
