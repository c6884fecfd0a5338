-- What can be sent now. A pool takes the smaller of what its live workers and its replicas take; the
-- limiter `pool:<name>` follows in the step that learns of a change, and so do limits that are `auto`.
--
-- A replica is ready, draining (no new prompts), or leaving (the same, and gone with its last one). Its
-- health is a circuit breaker:
--   starting  its readiness probe has not succeeded yet
--   up        takes prompts up to max_inflight
--   down      takes none until its probe succeeds, or, where a prompt found it so, until down_until
--   trial     after down_until: takes one, whose end says whether it is up, or down for twice as long
-- Invariant: a pool's limit is what runs at its replicas, whatever their state, plus what `choose` would
-- still place. So an admitted prompt finds a replica, and one that runs on at a replica that is leaving
-- takes nothing from the others.

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

local function with_state(id, replica)
  replica.id = id
  replica.state, replica.health = replica.state or 'ready', replica.health or 'up'
  return replica
end

-- All replicas by their ids.
function capacity.replicas()
  if not replicas then
    replicas = all_of(key.replicas)
    for id, replica in pairs(replicas) do
      with_state(id, replica)
    end
  end
  return replicas
end

-- A replica, or nil.
function capacity.replica(id)
  if replicas then
    return replicas[id]
  end
  local stored = redis.call('HGET', key.replicas, id)
  return stored and with_state(id, cjson.decode(stored)) or nil
end

function capacity.taken(id)
  return limiters.get('replica:' .. id).taken
end

-- Its timer is for whatever comes first: the end of its rest, of its registration, or of its drain.
local function set_timer(replica)
  local at = math.min(replica.health == 'down' and replica.down_until or math.huge,
    replica.expires_at or math.huge, replica.drain_until or math.huge)
  set_score(timers, 'replica ' .. replica.id, at < math.huge and at)
end

function capacity.save(replica)
  set_timer(replica)
  redis.call('HSET', key.replicas, replica.id, cjson.encode(replica))
  if replicas then
    replicas[replica.id] = replica
  end
end

-- Nothing runs there any more.
function capacity.forget(id)
  redis.call('HDEL', key.replicas, id)
  set_score(timers, 'replica ' .. id, false)
  set_score(timers, 'probe ' .. id, false)
  if replicas then
    replicas[id] = nil
  end
end

-- Whether what it takes has nothing to do with what runs there.
local function is_plain(replica, taken)
  return replica.state == 'ready' and replica.health == 'up' and not replica.probing_until
    and not (replica.strikes or replica.openings) and taken <= replica.max_inflight
end

local function is_serving(replica)
  return replica.state == 'ready' and (replica.health == 'up' or replica.health == 'trial')
end

-- Prompts that it could take beside those that run there. A probe that runs the model is one of them.
local function room(replica, taken)
  local most = replica.max_inflight - (replica.probing_until and 1 or 0)
  if not is_serving(replica) then
    return 0
  elseif replica.health == 'trial' then
    most = replica.trial and 0 or math.min(most, taken + 1)
  end
  return math.max(0, most - taken)
end

local function set_units(limit_key, limit, units)
  if limiters.get(limit_key).limit ~= units then
    limiters.set_limit(limit_key, limit)
    open[limit_key] = true
  end
end

-- Sets the limit of every pool that a member or a replica names, or named before, and of what follows
-- pools.
function capacity.refresh()
  local workers, machines, impaired = {}, {}, false
  for _, member in pairs(all_of(key.members)) do
    for pool, slots in pairs(member.pools or {}) do
      workers[pool] = (workers[pool] or 0) + slots
    end
  end
  for id, replica in pairs(capacity.replicas()) do
    local taken = capacity.taken(id)
    machines[replica.pool] = (machines[replica.pool] or 0) + taken + room(replica, taken)
    impaired = impaired or not is_plain(replica, taken)
  end
  if impaired ~= (read(meta, 'impaired') ~= false) then
    write(meta, 'impaired', impaired and '1')
  end
  local followers = {}
  for limit_key, stored in pairs(limiters.all()) do
    local pool = limit_key:match('^pool:(.*)$')
    if pool then
      pool = pool:gsub('%%2E', '.')
      workers[pool] = workers[pool] or 0
    end
    followers[limit_key] = limiters.followed(stored)
  end
  for pool, slots in pairs(workers) do
    local units = math.min(slots, machines[pool] or 0)
    if read(meta, 'paused pool ' .. pool) then
      units = 0
    end
    set_units(limiter_of(pool), units, units)
  end
  for limit_key, pools in pairs(followers) do
    local units = 0
    for pool in pools:gmatch('[^,]+') do
      units = units + limiters.get(limiter_of(pool)).limit
    end
    set_units(limit_key, limiters.following(units, pools), units)
  end
end

-- A prompt's key for affinity and the share of the load that a replica may have more than others,
-- 'key:factor'. Rendezvous hashing (Thaler and Ravishankar, 1998) says in which order replicas are asked,
-- and a bound on each one's load (Mirrokni, Thorup and Zadimoghaddam, SODA 2018) who has room for it.
local function nearest(candidates, affinity)
  local affinity_key, factor = affinity:match('^([^:]+):([%d.]+)$')
  local running, takes = 1, 0
  for _, candidate in ipairs(candidates) do
    running, takes = running + candidate.taken, takes + candidate.most
  end
  local best, best_hash
  for _, candidate in ipairs(candidates) do
    local bound = math.ceil(tonumber(factor) * running * candidate.most / takes)
    local hash = redis.sha1hex(affinity_key .. ' ' .. candidate.id)
    if candidate.room > 0 and not candidate.failed and candidate.taken < bound
      and (not best or hash > best_hash) then
      best, best_hash = candidate, hash
    end
  end
  return best
end

local function better(a, b)
  if a.failed ~= b.failed then
    return b.failed
  elseif a.load ~= b.load then
    return a.load < b.load
  elseif a.price ~= b.price then
    return a.price < b.price
  end
  return a.id < b.id
end

-- The replica that a prompt goes to, or nil: the largest free share, then the cheapest; with affinity the
-- nearest that has not more than its share. Those that failed it come last of all, when all that serve have:
-- as long as another one is only full, the second result is true.
function capacity.choose(request)
  local failed, candidates, has_other = {}, {}, false
  for _, told in ipairs(request.story or {}) do
    if told.failed_there then
      failed[told.replica] = true
    end
  end
  for id, replica in pairs(capacity.replicas()) do
    local taken = replica.pool == request.pool and capacity.taken(id) or 0
    if replica.pool == request.pool and is_serving(replica) then
      candidates[#candidates + 1] = {
        id = id, replica = replica, failed = failed[id] or false, taken = taken, most = replica.max_inflight,
        room = room(replica, taken), load = taken / replica.max_inflight, price = replica.price or 0,
      }
      has_other = has_other or not failed[id]
    end
  end
  local best = request.affinity and nearest(candidates, request.affinity)
  if not best then
    for _, candidate in ipairs(candidates) do
      if candidate.room > 0 and (not best or better(candidate, best)) then
        best = candidate
      end
    end
  end
  if best and best.failed and has_other and not request.has_waited then
    return nil, true
  end
  return best and best.replica, false
end

-- A prompt begins at a replica.
function capacity.enter(replica, request)
  limiters.take(limiters.get('replica:' .. replica.id))
  if replica.health == 'trial' then
    replica.trial = request.id
    capacity.save(replica)
  end
end

-- It runs there no more.
function capacity.leave(request)
  local id = request.replica
  limiters.give_back(limiters.get('replica:' .. id))
  request.replica = nil
  local replica = read(meta, 'impaired') and capacity.replica(id)
  if not replica then
    return
  end
  if replica.trial == request.id then
    replica.trial = nil
    capacity.save(replica)
  end
  if replica.state == 'leaving' and capacity.taken(id) == 0 then
    capacity.forget(id)
    capacity.refresh()
  elseif not is_plain(replica, capacity.taken(id) + 1) then
    capacity.refresh()
  end
end

-- What a prompt that began at `began_at` found is of this machine, and not of another that had its name.
local function is_of(replica, began_at)
  return began_at >= (replica.since or 0)
end

-- A prompt was answered there.
function capacity.served(id, began_at)
  local replica = read(meta, 'impaired') and capacity.replica(id)
  local is_marked = replica and (replica.health == 'trial'
    or (replica.health == 'up' and (replica.strikes or replica.openings)))
  if is_marked and is_of(replica, began_at) then
    replica.health, replica.trial, replica.strikes, replica.openings, replica.reason = 'up', nil, nil, nil, nil
    capacity.save(replica)
    capacity.refresh()
  end
end

-- Prompts in a row that broke off, each of which may have done it itself, until it is the replica's doing.
local MOST_STRIKES = 2
-- The longest rest of a replica that fails again and again, ms.
local LONGEST_REST_MS = 60000

-- A prompt that began at `began_at` found that it cannot serve: it is left alone for a while, for twice
-- as long each time that its trial fails. Where it is not sure that it was not the prompt's doing, others
-- have to find the same.
function capacity.failed(id, began_at, rest_ms, reason, is_sure)
  local replica = capacity.replica(id)
  local is_closed = replica and (replica.health == 'up' or replica.health == 'trial')
  -- One that began before it was found out the last time says nothing new.
  if not is_closed or not is_of(replica, began_at) or began_at < (replica.opened_at or 0) then
    return
  end
  replica.strikes = (replica.strikes or 0) + 1
  if not is_sure and replica.health == 'up' and replica.strikes < MOST_STRIKES then
    capacity.save(replica)
    capacity.refresh()
    return
  end
  replica.strikes, replica.openings = nil, (replica.openings or 0) + 1
  local longest = math.max(rest_ms, LONGEST_REST_MS)
  replica.health, replica.opened_at, replica.trial = 'down', now_ms, nil
  replica.down_until = now_ms + math.min(longest, rest_ms * 2 ^ (replica.openings - 1))
  replica.reason = reason
  capacity.save(replica)
  capacity.refresh()
end

-- The end of its rest.
function capacity.try_again(replica)
  replica.health, replica.down_until = 'trial', nil
  capacity.save(replica)
end
