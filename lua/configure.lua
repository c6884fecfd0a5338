--[[
configure: new policies or replicas, a policy's end, a pause. Limits change in this step; leases stay. When
the policies put requests into other queues than before, nobody is admitted until all live requests
are keyed anew, see rekey.lua.

KEYS, ARGV: see lib/step.lua.
args: schema; policies [text of {name, version, structure, source, document, limits {limit key: units
  or {auto [pools]} or {capacity, fill_amount, interval_ms, continuous, delay_initial_fill}}}] to add or replace, kept
  as they came (cjson would turn an empty list into an object); a policy with the content that it
  has already is left alone, and one of source 'api' is only replaced by another of that source;
  remove (name of a policy), node (its path in the tree), force (also while it is in use) and
  at_version (it is refused when the version is another by now); replicas {pool: [as of replicas.lua]},
  all that gateways' files have for each pool named; pause {pool or control_point, paused (bool)}.
result: {status: 'configured', version, applied [names], kept [names, of source 'api'], busy [ids of
  replicas that stay in another pool: prompts run there], rekeying (bool)}, {status: 'unreadable',
  schema}, or for a policy that cannot be removed {status: 'unknown'}, {status: 'stale_version'} or
  {status: 'in_use', waiting, in_flight}.
Safe to repeat: the same input changes nothing.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests roster admit close

local schema = read(meta, 'schema')
if schema and schema ~= args.schema then
  return close({ status = 'unreadable', schema = schema })
end
write(meta, 'schema', args.schema)

local function limit_text(limit)
  if type(limit) ~= 'table' then
    return limit
  elseif limit.auto then
    return limiters.following(0, table.concat(limit.auto, ','))
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

-- The pools that a limit follows are what the gateway's models say, and not in the document.
local function follow_the_same(before, after)
  for limit_key, limit in pairs(after) do
    local known = type(limit) == 'table' and limit.auto and before[limit_key]
    if known and table.concat(known.auto or {}, ',') ~= table.concat(limit.auto, ',') then
      return false
    end
  end
  return true
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
  if before and before.version == policy.version and follow_the_same(before.limits, policy.limits) then
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

-- A control point that is paused is a limit of none on all its requests: they keep their places.
local function pause(control_point, paused)
  local limit_key = 'paused:' .. control_point
  if (limiters.all()[limit_key] or false) == (paused and '0') then
    return
  end
  limiters.set_limit(limit_key, paused and 0 or false)
  changed[limit_key] = true
  restructured = true
end
if args.pause and args.pause.pool then
  write(meta, 'paused pool ' .. args.pause.pool, args.pause.paused and '1')
elseif args.pause then
  pause(args.pause.control_point, args.pause.paused)
end

if #applied > 0 or restructured then
  version = version + 1
  write(meta, 'version', version)
  if restructured and redis.call('HLEN', key.requests) + redis.call('HLEN', key.held) > 0 then
    write(meta, 'rekeying', version)
  elseif read(meta, 'rekeying') then
    -- Begun for an older version: it begins again.
    write(meta, 'rekeying', version)
  end
end

local busy = {}
for pool, list in pairs(args.replicas or {}) do
  for _, id in ipairs(roster.set(pool, 'config', list)) do
    busy[#busy + 1] = id
  end
end
capacity.refresh()

-- A limit that rose or went lets somebody go: all its gates are due, in bounded steps.
for limit_key in pairs(changed) do
  add_due(limit_key)
  add_due('after ' .. limit_key .. '= ' .. limit_key)
end
return close({
  status = 'configured', version = version, applied = applied, kept = #kept > 0 and kept or nil,
  busy = #busy > 0 and busy or nil,
  rekeying = read(meta, 'rekeying') ~= false,
})
