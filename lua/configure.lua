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

local applied, changed = {}, {}
for _, text in ipairs(args.policies or {}) do
  local policy = cjson.decode(text)
  local stored = redis.call('HGET', key.policies, policy.name)
  local before = stored and cjson.decode(stored)
  local same = before and before.version == policy.version
  if not same then
    for limit_key in pairs(before and before.limits or {}) do
      changed[limit_key] = true
      if not policy.limits[limit_key] then
        redis.call('HDEL', key.limits, limit_key)
      end
    end
    for limit_key, units in pairs(policy.limits) do
      changed[limit_key] = true
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

local known, named = capacity.replicas(), {}
for pool, replicas in pairs(args.replicas or {}) do
  for _, replica in ipairs(replicas) do
    local before = known[replica.id]
    named[replica.id] = true
    replica.pool = pool
    replica.down_until = before and before.url == replica.url and before.down_until or nil
    capacity.save_replica(replica.id, replica)
  end
end
for id, replica in pairs(known) do
  if args.replicas and args.replicas[replica.pool] and not named[id] then
    redis.call('HDEL', key.replicas, id)
  end
end
if args.replicas then
  capacity.refresh()
end

-- A limit that rose or went lets somebody go: all its gates are due, in bounded steps.
for limit_key in pairs(changed) do
  open[limit_key] = true
  redis.call('SADD', key.due, 'after ' .. limit_key .. '= ' .. limit_key)
end
return close({ status = 'configured', version = version, applied = applied })
