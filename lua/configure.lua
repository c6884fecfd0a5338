--[[
configure: new policies or replicas. Limits change in this step; leases stay.

KEYS, ARGV: see lib/step.lua.
args: schema; policies [text of {name, version, source, document, limits {limit key: units}}] to add
  or replace, kept as they came (cjson would turn an empty list into an object); replicas {pool: [{id, url, protocol, model, max_inflight}]} to set for each pool named;
  offer_again_ms. A policy with the content that it has
  already is left alone.
result: {status: 'configured', version, applied [names]} or {status: 'unreadable', schema}.
Safe to repeat: the same input changes nothing.
]]
-- use step limiters tree standing requests capacity admit close

local schema = redis.call('HGET', key.meta, 'schema')
if schema and schema ~= args.schema then
  return close({ status = 'unreadable', schema = schema })
end
redis.call('HSET', key.meta, 'schema', args.schema)

local applied = {}
for _, text in ipairs(args.policies or {}) do
  local policy = cjson.decode(text)
  local stored = redis.call('HGET', key.policies, policy.name)
  local before = stored and cjson.decode(stored)
  local same = before and before.version == policy.version
  if not same then
    for limit_key in pairs(before and before.limits or {}) do
      if not policy.limits[limit_key] then
        redis.call('HDEL', key.limits, limit_key)
      end
    end
    for limit_key, units in pairs(policy.limits) do
      limiters.set_limit(limit_key, units)
    end
    redis.call('HSET', key.policies, policy.name, text)
    applied[#applied + 1] = policy.name
  end
end
local version = tonumber(redis.call('HGET', key.meta, 'version') or 0)
if #applied > 0 then
  version = redis.call('HINCRBY', key.meta, 'version', 1)
end

local known = capacity.replicas()
for pool, replicas in pairs(args.replicas or {}) do
  local named = {}
  for _, replica in ipairs(replicas) do
    local before = known[replica.id]
    named[replica.id] = true
    replica.pool = pool
    replica.down_until = before and before.url == replica.url and before.down_until or nil
    capacity.save_replica(replica.id, replica)
  end
  for id, replica in pairs(known) do
    if replica.pool == pool and not named[id] then
      redis.call('HDEL', key.replicas, id)
    end
  end
end
if args.replicas then
  capacity.refresh()
end

-- A limit that rose lets somebody go: look at every gate of a limit that was set.
for _, text in ipairs(args.policies or {}) do
  for limit_key in pairs(cjson.decode(text).limits) do
    open[limit_key] = true
    local after = '[q ' .. limit_key .. '='
    local gate_entry = redis.call('ZRANGEBYLEX', key.standing, after, '(q ' .. limit_key .. '>', 'LIMIT', 0, 1)[1]
    while gate_entry do
      local gate = gate_entry:match('^q (%S+)')
      open[gate] = true
      gate_entry = redis.call('ZRANGEBYLEX', key.standing, '[q ' .. gate .. '!', '(q ' .. limit_key .. '>', 'LIMIT', 0, 1)[1]
    end
  end
end
return close({ status = 'configured', version = version, applied = applied })
