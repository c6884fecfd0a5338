#!lua flags=allow-oom
--[[
sweep: whatever is due. Run at the exact time of the next timer by whoever knows of it, and slowly
by every process, which covers for one that died. Carries the caller's sign of life.

KEYS, ARGV: see lib/step.lua.
args: member {id, kind 'gateway' | 'worker', pools {pool: slots}} or absent, alive_ms, leave (bool).
result: {swept, joined (bool: the member was not known, so what it owned may be gone), probes (of a
  worker: the pools whose replicas it probes)}.
Safe to repeat: everything it does depends on the clock alone. Bounded; the rest is due at once.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests roster admit close

local SWEPT_A_STEP = 32
-- Requests looked at in one step for those of a member that is gone.
local SCANNED_A_STEP = 128

ended.turn()

-- When nobody has swept for long, Redis was away: nobody could give a sign of life, so nobody is
-- taken for dead before there has been time for one.
fetch(meta, { 'swept_at', 'grace_until', 'rekeying' })
local swept_at = tonumber(read(meta, 'swept_at') or now_ms)
local grace_until = tonumber(read(meta, 'grace_until') or 0)
if now_ms - swept_at > args.alive_ms / 2 then
  grace_until = now_ms + args.alive_ms
  write(meta, 'grace_until', grace_until)
end
write(meta, 'swept_at', now_ms)

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
  elseif state == 'admitted' and request.pool and is_frozen() then
    -- Its queue is about to change.
    requests.set_timer(request, now_ms + settings.begin_ms)
  elseif state == 'admitted' and request.deferred then
    requests.offer_anywhere(request)
  elseif state == 'admitted' and request.pool then
    requests.put_back(request)
  elseif now_ms < grace_until then
    request.lease_until = grace_until
    requests.save(request)
    requests.set_timer(request, math.min(request.lease_until, request.end_by))
  elseif request.pool then
    requests.retry(request, 'upstream_failed', 'its workers stopped answering')
  else
    requests.finish(request, { state = 'expired', code = 'expired', message = 'its heartbeat stopped' })
  end
end

local function older(a, b)
  return a.sequence < b.sequence
end

-- Looks through some of the live requests, waiting ones first, and does something with those that match.
-- The cursor is kept in `field` from step to step; a round that found some is followed by another, since
-- requests change places meanwhile. Says whether all is done.
local function look_through(field, begins_at, matches, act)
  local hash, cursor, found = (read(meta, field) or begins_at .. ' 0 0'):match('^(%S+) (%S+) (%S+)$')
  found = tonumber(found)
  local seen = 0
  while seen < SCANNED_A_STEP do
    local page = redis.call('HSCAN', key[hash], cursor, 'COUNT', SCANNED_A_STEP)
    cursor, seen = page[1], seen + math.max(1, #page[2] / 2)
    local matching = {}
    for i = 1, #page[2], 2 do
      local request = requests.load(page[2][i])
      if request and matches(request) then
        matching[#matching + 1] = request
      end
    end
    table.sort(matching, older)
    for _, request in ipairs(matching) do
      act(request)
    end
    found = found + #matching
    if cursor == '0' and hash == 'requests' then
      hash = 'held'
    elseif cursor == '0' and found > 0 then
      hash, found = begins_at, 0
    elseif cursor == '0' then
      write(meta, field, false)
      return true
    end
  end
  write(meta, field, hash .. ' ' .. cursor .. ' ' .. found)
  return false
end

local function end_owned(id)
  return look_through('leaving ' .. id, 'requests', function(request)
    return request.owner == id
  end, function(request)
    requests.disown(request)
    requests.cancel(request, 'its gateway is gone', 'unavailable')
  end)
end

-- What still runs at a replica when its time is over goes to others.
local function move_from(id)
  local entry = 'move ' .. id
  local replica = capacity.replica(id)
  -- Its drain may be over meanwhile, or have more time.
  local is_over = replica and (replica.state == 'ready' or replica.drain_until)
  if is_over or look_through('moving ' .. id, 'held', function(request)
    return request.replica == id
  end, function(request)
    requests.retry(request, 'unavailable', 'its replica goes away')
  end) then
    write(meta, 'moving ' .. id, false)
    set_score(timers, entry, false)
  else
    set_score(timers, entry, now_ms)
  end
end

-- A member that gave no sign of life for alive_ms. What a gateway owned has no client any more.
local function member_gone(id)
  local leaves = args.leave and args.member.id == id
  if now_ms < grace_until and not leaves then
    set_score(timers, 'member ' .. id, grace_until)
    return
  end
  if end_owned(id) then
    redis.call('HDEL', key.members, id)
    set_score(timers, 'member ' .. id, false)
    capacity.refresh()
  end
end

local function time_out(entry)
  -- What came before in this sweep may have ended it, and so set its timer anew.
  local changed_to = timers.scores[entry]
  if changed_to == false or (changed_to and changed_to > now_ms) then
    return
  end
  local kind, id = entry:match('^(%S+) (%S+)$')
  if kind == 'member' then
    member_gone(id)
    return
  end
  set_score(timers, entry, false)
  if kind == 'replica' then
    if roster.on_time(id, grace_until) then
      move_from(id)
    end
  elseif kind == 'move' then
    move_from(id)
  elseif kind == 'probe' then
    roster.probe(id)
  elseif kind == 'dead' then
    dead.trim()
  elseif kind == 'bucket' then
    local limiter = limiters.get(id)
    if limiter.bucket then
      buckets.let_go(limiter)
    end
    open[id] = true
  else
    local request = requests.load(entry)
    if request then
      on_time(request)
    end
  end
end

-- Puts a request among the entries that are left, which are in the order of their times, then names.
local function insert_in_order(entries, times, from, request)
  local id, deadline = request.id, request.deadline
  if times[id] then
    return
  end
  times[id] = deadline
  local place = from
  while entries[place] and (times[entries[place]] < deadline
    or (times[entries[place]] == deadline and entries[place] < id)) do
    place = place + 1
  end
  table.insert(entries, place, id)
end

local joined, probes = false, nil
if args.member then
  local id = args.member.id
  if args.leave then
    set_score(timers, 'member ' .. id, now_ms)
    roster.resign(id, args.member.pools)
  else
    local before = redis.call('HGET', key.members, id)
    local now_known = cjson.encode({ kind = args.member.kind, pools = args.member.pools })
    joined = not before
    set_score(timers, 'member ' .. id, now_ms + args.alive_ms)
    if read(meta, 'leaving ' .. id) then
      write(meta, 'leaving ' .. id, false)
    end
    if before ~= now_known then
      redis.call('HSET', key.members, id, now_known)
      roster.resign(id, before and cjson.decode(before).pools)
      capacity.refresh()
    end
    flush_scores(timers)
    probes = roster.elect(args.member, args.alive_ms)
  end
end

flush_scores(timers)
local late = redis.call('ZRANGEBYSCORE', key.timers, '-inf', now_ms, 'WITHSCORES', 'LIMIT', 0, SWEPT_A_STEP)
local entries, times = {}, {}
for i = 1, #late, 2 do
  entries[#entries + 1], times[late[i]] = late[i], tonumber(late[i + 1])
end
requests.fetch(entries)
local swept = 0
while swept < #entries and swept < SWEPT_A_STEP do
  swept = swept + 1
  time_out(entries[swept])
  -- Whoever stood behind one that ended may be late as well: it takes its turn.
  for _, request in ipairs(requests.take_woken()) do
    insert_in_order(entries, times, swept + 1, request)
  end
end

-- Offered to BullMQ by a process that did not live to say so: offered again.
local unsent = redis.call('ZRANGEBYSCORE', key.outbox, '-inf', now_ms, 'LIMIT', 0, SWEPT_A_STEP)
for _, entry in ipairs(unsent) do
  local id, attempt = entry:match('^(%S+) (%S+)$')
  local request = requests.load(id)
  if request and request.state == 'admitted' and request.attempt == tonumber(attempt) then
    set_score(outbox, entry, now_ms + settings.offer_again_ms)
    dispatch[#dispatch + 1] = { id = id, attempt = request.attempt, pool = request.pool }
  else
    set_score(outbox, entry, false)
  end
end
return close({ swept = swept, joined = joined, probes = probes })
