--[[
configure: new policies or replicas, or a policy's end. Limits change in this step; leases stay. When
the policies put requests into other queues than before, nobody is admitted until all live requests
are keyed anew, see rekey.lua.

KEYS, ARGV: see lib/step.lua.
args: schema; policies [text of {name, version, structure, source, document, limits {limit key: units
  or {capacity, fill_amount, interval_ms, continuous, delay_initial_fill}}}] to add or replace, kept
  as they came (cjson would turn an empty list into an object); a policy with the content that it
  has already is left alone, and one of source 'api' is only replaced by another of that source;
  remove (name of a policy), node (its path in the tree), force (also while it is in use) and
  at_version (it is refused when the version is another by now); replicas {pool: [{id, url, protocol,
  model, max_inflight}]} to set for each pool named.
result: {status: 'configured', version, applied [names], kept [names, of source 'api'], rekeying
  (bool)}, {status: 'unreadable', schema}, or for a policy that cannot be removed {status: 'unknown'},
  {status: 'stale_version'} or {status: 'in_use', waiting, in_flight}.
Safe to repeat: the same input changes nothing.
]]
-- use step limiters buckets tree shares standing ended records requests capacity admit close

local schema = read(meta, 'schema')
if schema and schema ~= args.schema then
  return close({ status = 'unreadable', schema = schema })
end
write(meta, 'schema', args.schema)

local function limit_text(limit)
  if type(limit) ~= 'table' then
    return limit
  end
  return string.format('bucket %.17g %.17g %.0f %d %d', limit.capacity, limit.fill_amount, limit.interval_ms,
    limit.continuous and 1 or 0, limit.delay_initial_fill and 1 or 0)
end

local function policy_of(name)
  local stored = redis.call('HGET', key.policies, name)
  return stored and cjson.decode(stored)
end

local applied, kept, changed, restructured = {}, {}, {}, false

local function set_limits(before, after)
  for limit_key in pairs(before) do
    changed[limit_key] = true
    if after[limit_key] == nil then
      limiters.set_limit(limit_key, false)
    end
  end
  for limit_key, limit in pairs(after) do
    changed[limit_key] = true
    limiters.set_limit(limit_key, limit_text(limit))
  end
end

local version = tonumber(read(meta, 'version') or 0)

if args.remove then
  local before = policy_of(args.remove)
  if not before then
    return close({ status = 'unknown' })
  end
  if args.at_version ~= version then
    return close({ status = 'stale_version', version = version })
  end
  local node = tree.node(args.node)
  if not args.force and node.waiting + node.held > 0 then
    return close({ status = 'in_use', waiting = node.waiting, in_flight = node.held })
  end
  redis.call('HDEL', key.policies, args.remove)
  set_limits(before.limits, {})
  restructured = true
  applied[1] = args.remove
end

for _, text in ipairs(args.policies or {}) do
  local policy = cjson.decode(text)
  local before = policy_of(policy.name)
  if before and before.version == policy.version then
    -- The same content changes nothing.
  elseif before and before.source == 'api' and policy.source ~= 'api' then
    kept[#kept + 1] = policy.name
  else
    restructured = restructured or not before or before.structure ~= policy.structure
    set_limits(before and before.limits or {}, policy.limits)
    redis.call('HSET', key.policies, policy.name, text)
    applied[#applied + 1] = policy.name
  end
end
if #applied > 0 then
  version = version + 1
  write(meta, 'version', version)
  if restructured and redis.call('HLEN', key.requests) + redis.call('HLEN', key.held) > 0 then
    write(meta, 'rekeying', version)
  elseif read(meta, 'rekeying') then
    -- Begun for an older version: it begins again.
    write(meta, 'rekeying', version)
  end
end

local named = {}
for pool, replicas_of_pool in pairs(args.replicas or {}) do
  for _, replica in ipairs(replicas_of_pool) do
    local before = capacity.replicas()[replica.id]
    named[replica.id] = true
    replica.pool = pool
    replica.down_until = before and before.url == replica.url and before.down_until or nil
    capacity.save_replica(replica.id, replica)
  end
end
for id, replica in pairs(capacity.replicas()) do
  if args.replicas and args.replicas[replica.pool] and not named[id] then
    capacity.drop_replica(id)
  end
end
if args.replicas then
  capacity.refresh()
end

-- A limit that rose or went lets somebody go: all its gates are due, in bounded steps.
for limit_key in pairs(changed) do
  add_due(limit_key)
  add_due('after ' .. limit_key .. '= ' .. limit_key)
end
return close({
  status = 'configured', version = version, applied = applied, kept = #kept > 0 and kept or nil,
  rekeying = read(meta, 'rekeying') ~= false,
})
