-- What can be sent now. A pool takes the smaller of what its live workers and its usable replicas
-- take; the limiter `pool:<name>` follows, in the step that learns of a change.

local capacity = {}
-- private

-- The limiter of a pool, encoded as src/policy/names.ts does.
local function limiter_of(pool)
  return 'pool:' .. pool:gsub('%.', '%%2E')
end

local function all_of(hash)
  local flat, list = redis.call('HGETALL', hash), {}
  for i = 1, #flat, 2 do
    list[flat[i]] = cjson.decode(flat[i + 1])
  end
  return list
end

local replicas
at_start(function()
  replicas = nil
end)

function capacity.replicas()
  replicas = replicas or all_of(key.replicas)
  return replicas
end

function capacity.save_replica(id, replica)
  redis.call('HSET', key.replicas, id, cjson.encode(replica))
  replicas = nil
end

function capacity.drop_replica(id)
  redis.call('HDEL', key.replicas, id)
  replicas = nil
end

-- A replica with its id, or nil.
function capacity.replica(id)
  local replica = capacity.replicas()[id]
  if replica then
    replica.id = id
  end
  return replica
end

local function usable(replica)
  return not replica.down_until or replica.down_until <= now_ms
end

-- Sets the limit of every pool that a member or a replica names, or named before.
function capacity.refresh()
  local workers, machines = {}, {}
  for _, member in pairs(all_of(key.members)) do
    for pool, slots in pairs(member.pools or {}) do
      workers[pool] = (workers[pool] or 0) + slots
    end
  end
  for _, replica in pairs(capacity.replicas()) do
    machines[replica.pool] = (machines[replica.pool] or 0) + (usable(replica) and replica.max_inflight or 0)
  end
  for _, limit_key in ipairs(redis.call('HKEYS', key.limits)) do
    local pool = limit_key:match('^pool:(.*)$')
    if pool then
      pool = pool:gsub('%%2E', '.')
      workers[pool] = workers[pool] or 0
    end
  end
  for pool, slots in pairs(workers) do
    local name, units = limiter_of(pool), math.min(slots, machines[pool] or 0)
    if units ~= limiters.get(name).limit then
      limiters.set_limit(name, units)
      open[name] = true
    end
  end
end

-- The usable replica of a pool with the largest free share, or nil. `not_this` is only taken when
-- it is the last one left.
function capacity.choose(pool, not_this)
  local best_id, best, best_load
  local ids = {}
  local list = capacity.replicas()
  for id in pairs(list) do
    ids[#ids + 1] = id
  end
  table.sort(ids)
  for _, id in ipairs(ids) do
    local replica = list[id]
    local taken = limiters.get('replica:' .. id).taken
    if replica.pool == pool and usable(replica) and taken < replica.max_inflight then
      local load = taken / replica.max_inflight + (id == not_this and 1 or 0)
      if not best or load < best_load then
        best_id, best, best_load = id, replica, load
      end
    end
  end
  return best_id, best
end

-- A replica that cannot serve anybody now (no answer, or 502, 503, 504) is left alone for a while.
function capacity.mark_down(id, for_ms)
  local replica = capacity.replicas()[id]
  if replica then
    replica.id = nil
    replica.down_until = now_ms + for_ms
    capacity.save_replica(id, replica)
    set_score(timers, 'replica ' .. id, replica.down_until)
    capacity.refresh()
  end
end
