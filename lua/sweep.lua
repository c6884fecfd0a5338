#!lua flags=allow-oom
--[[
sweep: whatever is due. Run at the exact time of the next timer by whoever knows of it, and slowly
by every process, which covers for one that died. Carries the caller's sign of life.

KEYS, ARGV: see lib/step.lua.
args: member {id, kind 'gateway' | 'worker', pools {pool: slots}} or absent, alive_ms, leave (bool),
  offer_again_ms, begin_ms.
result: {swept, joined (bool: the member was not known, so what it owned may be gone)}.
Safe to repeat: everything it does depends on the clock alone. Bounded; the rest is due at once.
]]
-- use step limiters tree standing requests capacity admit close

local SWEPT_A_STEP = 64

-- When nobody has swept for long, Redis was away: nobody could give a sign of life, so nobody is
-- taken for dead before there has been time for one.
local swept_at = tonumber(redis.call('HGET', key.meta, 'swept_at') or now_ms)
local grace_until = tonumber(redis.call('HGET', key.meta, 'grace_until') or 0)
if now_ms - swept_at > args.alive_ms / 2 then
  grace_until = now_ms + args.alive_ms
  redis.call('HSET', key.meta, 'grace_until', grace_until)
end
redis.call('HSET', key.meta, 'swept_at', now_ms)

local function on_time(request)
  local state = request.state
  if state == 'waiting' then
    requests.finish(request, {
      state = 'rejected', code = 'queue_timeout', message = 'waited longer than its time in the queue',
    })
  elseif request.end_by <= now_ms then
    requests.finish(request, {
      state = 'expired', code = 'expired', message = 'ran longer than the max inflight duration',
    })
  elseif state == 'admitted' then
    requests.put_back(request)
  elseif now_ms < grace_until then
    request.lease_until = grace_until
    requests.save(request)
    requests.set_timer(request, math.min(request.lease_until, request.end_by))
  else
    requests.retry(request, 'upstream_failed', 'its workers stopped answering')
  end
end

-- A member that gave no sign of life for alive_ms. What a gateway owned has no client any more.
local function member_gone(id)
  local leaves = args.leave and args.member.id == id
  if now_ms < grace_until and not leaves then
    redis.call('ZADD', key.timers, grace_until, 'member ' .. id)
    return
  end
  local owned = lex_range(key.owned, id, 0, SWEPT_A_STEP)
  for _, entry in ipairs(owned) do
    local request = requests.load(entry:match('(%S+)$'))
    redis.call('ZREM', key.owned, entry)
    if request then
      request.owner = nil
      requests.save(request)
      requests.cancel(request, 'its gateway is gone', 'unavailable')
    end
  end
  if #owned < SWEPT_A_STEP then
    redis.call('HDEL', key.members, id)
    redis.call('ZREM', key.timers, 'member ' .. id)
    capacity.refresh()
  end
end

local function time_out(entry)
  -- What came before in this sweep may have ended it, and so set its timer anew.
  local due = redis.call('ZSCORE', key.timers, entry)
  if not due or tonumber(due) > now_ms then
    return
  end
  local kind, id = entry:match('^(%S+) (%S+)$')
  if kind == 'member' then
    member_gone(id)
    return
  end
  redis.call('ZREM', key.timers, entry)
  if kind == 'replica' then
    capacity.refresh()
    return
  end
  local request = requests.load(entry)
  if request then
    on_time(request)
  else
    redis.call('HDEL', key.ended, entry)
  end
end

local joined = false
if args.member then
  local id = args.member.id
  if args.leave then
    redis.call('ZADD', key.timers, now_ms, 'member ' .. id)
  else
    local before = redis.call('HGET', key.members, id)
    local now_known = cjson.encode({ kind = args.member.kind, pools = args.member.pools })
    joined = not before
    redis.call('ZADD', key.timers, now_ms + args.alive_ms, 'member ' .. id)
    if before ~= now_known then
      redis.call('HSET', key.members, id, now_known)
      capacity.refresh()
    end
  end
end

local late = redis.call('ZRANGEBYSCORE', key.timers, '-inf', now_ms, 'LIMIT', 0, SWEPT_A_STEP)
for _, entry in ipairs(late) do
  time_out(entry)
end

-- Offered to BullMQ by a process that did not live to say so: offered again.
local unsent = redis.call('ZRANGEBYSCORE', key.outbox, '-inf', now_ms, 'LIMIT', 0, SWEPT_A_STEP)
for _, entry in ipairs(unsent) do
  local id, attempt = entry:match('^(%S+) (%S+)$')
  local request = requests.load(id)
  if request and request.state == 'admitted' and request.attempt == tonumber(attempt) then
    redis.call('ZADD', key.outbox, now_ms + args.offer_again_ms, entry)
    dispatch[#dispatch + 1] = { id = id, attempt = request.attempt, pool = request.pool }
  else
    redis.call('ZREM', key.outbox, entry)
  end
end
return close({ swept = #late, joined = joined })
