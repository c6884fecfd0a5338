-- Slots and buckets. A limiter is named by its limit key, or by `limit key=label value` where each
-- value of a label has units of its own; `pool:` and `replica:` limiters are capacity that can be
-- missing. What its limit key says makes it one or the other:
--   '<units>'                                            slots: so many requests at a time
--   'auto <units> <pool>,<pool>'                         slots: as many as these pools take now
--   'bucket <capacity> <fill> <interval> <even> <delay> <since>' tokens: see lib/buckets.lua; `since` is
--                                                        another number whenever the limit is set anew
-- Invariant: in_flight[limiter] is the number of requests that hold it, and is never raised at or
-- above the limit, except when requests that run are keyed anew.

local limiters = {}
-- private
local needs_of, known, limits, limit_of, taken_changed
at_start(function()
  known, limits, limit_of, taken_changed = fresh(known), cached(limits, key.limits), fresh(limit_of), fresh(taken_changed)
  needs_of = fresh(needs_of)
  limiters.some_buckets = false
end)

local function parse_bucket(stored)
  local capacity, fill, interval, even, delay, since = stored:match('^bucket (%S+) (%S+) (%S+) (%d) (%d) (%d+)$')
  if not capacity then
    return nil
  end
  return {
    capacity = tonumber(capacity), fill = tonumber(fill), interval = tonumber(interval),
    even = even == '1', delay = delay == '1', stamp = capacity .. ' ' .. fill .. ' ' .. interval .. ' ' .. since,
  }
end

local function limit_key_of(name)
  local value = name:find('=', 1, true)
  return value and name:sub(1, value - 1) or name
end

-- What a limit key says: {limit} for slots, {limit, bucket} for tokens.
local function read_limit(limit_key)
  local found = limit_of[limit_key]
  if not found then
    local stored = read(limits, limit_key)
    local units = tonumber(stored and (stored:match('^auto (%d+) ') or stored) or nil)
    local bucket = stored and not units and parse_bucket(stored) or nil
    limiters.some_buckets = limiters.some_buckets or bucket ~= nil
    if not stored then
      -- A pool that nobody has announced can take nothing. A policy that is gone limits nothing.
      units = limit_key:sub(1, 5) == 'pool:' and 0 or math.huge
    end
    found = { limit = units or math.huge, bucket = bucket }
    limit_of[limit_key] = found
  end
  return found
end

local function add_known(name, taken)
  local found = read_limit(limit_key_of(name))
  local limiter = { name = name, limit = found.limit, bucket = found.bucket, taken = tonumber(taken or 0), state = false }
  known[name] = limiter
  return limiter
end

function limiters.get(name)
  return known[name] or add_known(name, redis.call('HGET', key.in_flight, name))
end

-- Reads many at once.
function limiters.fetch(names)
  local wanted = {}
  for _, name in ipairs(names) do
    if not known[name] then
      known[name] = true
      wanted[#wanted + 1] = name
    end
  end
  local taken = read_many(key.in_flight, wanted)
  for i, name in ipairs(wanted) do
    add_known(name, taken[i])
  end
end

local function set_taken(limiter, taken)
  limiter.taken = taken
  taken_changed[limiter] = true
end

function limiters.take(limiter)
  set_taken(limiter, limiter.taken + 1)
end

function limiters.give_back(limiter)
  set_taken(limiter, math.max(0, limiter.taken - 1))
end

-- The limiters of a path, found once in a step.
function limiters.of(path)
  local list = needs_of[path]
  if not list then
    list = {}
    for i, name in ipairs(path.limiters) do
      list[i] = known[name] or limiters.get(name)
    end
    needs_of[path] = list
  end
  return list
end

-- Whether any of a path's are slots.
function limiters.some_slots(path)
  for _, limiter in ipairs(limiters.of(path)) do
    if not limiter.bucket then
      return true
    end
  end
  return false
end

-- Those that a path needs and another does not.
function limiters.only_of(path, other)
  local others, list = {}, {}
  for _, limiter in ipairs(limiters.of(other)) do
    others[limiter] = true
  end
  for _, limiter in ipairs(limiters.of(path)) do
    if not others[limiter] then
      list[#list + 1] = limiter
    end
  end
  return list
end

-- What every limit key says: false where it was taken away in this step.
function limiters.all()
  fetch(limits, redis.call('HKEYS', key.limits))
  return limits.values
end

-- The pools that a limit follows, with commas between, or nil; and such a limit.
function limiters.followed(stored)
  return stored and stored:match('^auto %d+ (%S+)$') or nil
end
function limiters.following(units, pools)
  return 'auto ' .. whole(units) .. ' ' .. pools
end

-- `limit`: units, the text of one that follows pools, or of a bucket without `since`, or false for none.
function limiters.set_limit(limit_key, limit)
  if type(limit) == 'number' then
    limit = whole(limit)
  end
  if type(limit) == 'string' and limit:find('^bucket ') then
    local before = read(limits, limit_key)
    if before and before:match('^(bucket .*) %d+$') == limit then
      return
    end
    limit = limit .. ' ' .. whole(next_sequence())
  end
  write(limits, limit_key, limit)
  limit_of[limit_key] = nil
  local found = read_limit(limit_key)
  for name, limiter in pairs(known) do
    if limit_key_of(name) == limit_key then
      limiter.limit, limiter.bucket, limiter.state = found.limit, found.bucket, false
    end
  end
end

function limiters.save()
  flush(limits)
  if not next(taken_changed) then
    return
  end
  local sets, removals = {}, {}
  for limiter in pairs(taken_changed) do
    if limiter.taken > 0 then
      sets[#sets + 1] = limiter.name
      sets[#sets + 1] = whole(limiter.taken)
    else
      removals[#removals + 1] = limiter.name
    end
  end
  flush_lists(key.in_flight, sets, removals)
end
