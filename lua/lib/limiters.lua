-- Slots. A limiter is named by its limit key, or by `limit key=label value` where each value of a
-- label has units of its own; `pool:` and `replica:` limiters are capacity that can be missing.
-- Invariant: in_flight[limiter] is the number of requests that hold it, and is never raised at or
-- above the limit.

local limiters = {}
local limit_of, taken_of = {}, {}

function limiters.limit(name)
  local limit_key = name:match('^[^=]+')
  if limit_of[limit_key] == nil then
    local stored = redis.call('HGET', key.limits, limit_key)
    -- A pool that nobody has announced can take nothing. A policy that is gone limits nothing.
    local missing = limit_key:find('^pool:') and 0 or math.huge
    limit_of[limit_key] = stored and tonumber(stored) or missing
  end
  return limit_of[limit_key]
end

function limiters.taken(name)
  if taken_of[name] == nil then
    taken_of[name] = tonumber(redis.call('HGET', key.in_flight, name) or 0)
  end
  return taken_of[name]
end

function limiters.free(name)
  return limiters.limit(name) - limiters.taken(name)
end

function limiters.take(name)
  taken_of[name] = redis.call('HINCRBY', key.in_flight, name, 1)
end

function limiters.give_back(name)
  local taken = redis.call('HINCRBY', key.in_flight, name, -1)
  if taken <= 0 then
    redis.call('HDEL', key.in_flight, name)
  end
  taken_of[name] = math.max(taken, 0)
end

function limiters.set_limit(limit_key, units)
  redis.call('HSET', key.limits, limit_key, units)
  limit_of[limit_key] = units
end

-- The first of `names` without a free unit, or nil when a request that needs them all may go.
function limiters.first_closed(names)
  for _, name in ipairs(names) do
    if limiters.free(name) <= 0 then
      return name
    end
  end
  return nil
end
