-- Which replicas there are, and what their probes say. See lib/capacity.lua for their states.
-- One that a gateway's file names has the source 'config', one that was put over HTTP 'api', one that a
-- name service knows 'dns'. What was put over HTTP stays until it is removed there.

local roster = {}
-- private

-- A worker that gave no sign of life for so long probes no more, ms: less than it takes to be gone.
local SILENT_MS = 5000
-- Replicas of all pools together, of those that are put one by one.
local MOST_REPLICAS = 1000
-- A probe that nobody has reported by then after its timeout is given up, ms.
local REPORT_MS = 1000

local STATE_FIELDS = {
  'state', 'health', 'down_until', 'openings', 'opened_at', 'strikes', 'trial', 'reason', 'streak', 'probing',
  'probing_until', 'since', 'drain_until',
}

local function probe_of(id)
  local stored = redis.call('HGET', key.probes, id)
  return stored and cjson.decode(stored)
end

-- What a pool takes may be another.
local function has_changed(pool)
  capacity.refresh()
  requests.offer_deferred(pool)
end

-- No new prompts; what runs there at `until_ms` is moved.
function roster.drain(replica, until_ms)
  replica.state, replica.drain_until = 'draining', until_ms
  capacity.save(replica)
  -- Who waits for this one may have to go to another.
  has_changed(replica.pool)
end

-- Takes prompts again.
function roster.ready(replica)
  replica.state, replica.drain_until = 'ready', nil
  capacity.save(replica)
  has_changed(replica.pool)
end

-- Takes it out: it goes with its last prompt.
function roster.remove(id)
  local replica = capacity.replica(id)
  redis.call('HDEL', key.probes, id)
  set_score(timers, 'probe ' .. id, false)
  if capacity.taken(id) == 0 then
    capacity.forget(id)
  else
    replica.state, replica.expires_at, replica.probed = 'leaving', nil, nil
    capacity.save(replica)
  end
  has_changed(replica.pool)
end

-- Its probe, or nil; one that is new is due at once.
local function keep_probe(id, probe, is_new, busy_until)
  if not probe then
    redis.call('HDEL', key.probes, id)
    set_score(timers, 'probe ' .. id, false)
  elseif is_new or redis.call('HGET', key.probes, id) ~= probe then
    redis.call('HSET', key.probes, id, probe)
    -- One that runs keeps its place until it is given up.
    set_score(timers, 'probe ' .. id, math.max(now_ms, busy_until or 0))
  end
end

-- Whether there is room for one more.
function roster.is_full()
  return redis.call('HLEN', key.replicas) >= MOST_REPLICAS
end

-- Puts one in, or another in its place; false where prompts of another pool run there. What is known of
-- it stays as long as its address does. `given` has its fields, probe (JSON text, for none absent), state
-- and ttl_ms.
function roster.put(pool, source, given)
  local id, probe = given.id, given.probe
  local before = capacity.replica(id)
  if before and before.pool ~= pool and capacity.taken(id) > 0 then
    return false
  end
  local replica = { pool = pool, source = source, probed = probe and true or nil, expires_at = nil }
  for field, value in pairs(given) do
    replica[field] = value
  end
  replica.probe, replica.ttl_ms, replica.state = nil, nil, nil
  if given.ttl_ms then
    replica.expires_at = now_ms + given.ttl_ms
  end
  local is_same = before and before.url == given.url and before.pool == pool and before.state ~= 'leaving'
  if is_same then
    for _, field in ipairs(STATE_FIELDS) do
      replica[field] = before[field]
    end
    local waits_for_probe = replica.health == 'starting' or (replica.health == 'down' and not replica.down_until)
    if waits_for_probe and not probe then
      replica.health, replica.reason = 'up', nil
    end
  else
    replica.state, replica.health, replica.since = 'ready', probe and 'starting' or 'up', now_ms
    local is_there = before and before.url == given.url
    replica.probing_until = is_there and before.probing_until or nil
  end
  if given.state == 'draining' and replica.state ~= 'draining' then
    replica.state = 'draining'
  elseif given.state == 'ready' then
    replica.state, replica.drain_until = 'ready', nil
  end
  if not probe then
    replica.probing, replica.probing_until = nil, nil
  end
  capacity.save(replica)
  keep_probe(id, probe, not is_same, replica.probing_until)
  -- One that only renews itself changes nothing.
  for _, field in ipairs({ 'max_inflight', 'pool', 'state', 'health', 'probing_until' }) do
    if not before or before[field] ~= replica[field] then
      has_changed(pool)
      return true
    end
  end
  return true
end

-- The replicas that one source has for a pool, in place of those that it had. Returns those that stay
-- where they are, since prompts of another pool run there.
function roster.set(pool, source, list)
  local named, busy = {}, {}
  for _, given in ipairs(list) do
    local before = capacity.replica(given.id)
    named[given.id] = true
    local is_theirs = not before or before.source ~= 'api' or before.state == 'leaving'
    if is_theirs and not roster.put(pool, source, given) then
      busy[#busy + 1] = given.id
    end
  end
  local gone = {}
  for id, replica in pairs(capacity.replicas()) do
    local is_theirs = replica.pool == pool and (replica.source or 'config') == source
    if is_theirs and not named[id] and replica.state ~= 'leaving' then
      gone[#gone + 1] = id
    end
  end
  for _, id in ipairs(gone) do
    roster.remove(id)
  end
  return busy
end

-- The timer of a replica. Says whether what runs there has to be moved. Until `grace_until` nobody can have
-- put it again: Redis was away.
function roster.on_time(id, grace_until)
  local replica = capacity.replica(id)
  if not replica then
    return false
  elseif (replica.expires_at or math.huge) <= now_ms and now_ms < grace_until then
    replica.expires_at = grace_until
    capacity.save(replica)
  end
  local moves = (replica.drain_until or math.huge) <= now_ms
  if moves then
    replica.drain_until = nil
    capacity.save(replica)
  end
  if (replica.expires_at or math.huge) <= now_ms then
    roster.remove(id)
  elseif replica.health == 'down' and (replica.down_until or math.huge) <= now_ms then
    capacity.try_again(replica)
    has_changed(replica.pool)
  end
  return moves and capacity.taken(id) > 0
end

local function is_alive(member, alive_ms)
  local gone_at = member and tonumber(redis.call('ZSCORE', key.timers, 'member ' .. member) or nil)
  return gone_at and gone_at - alive_ms > now_ms - math.min(SILENT_MS, alive_ms / 2)
end

-- A worker gives a sign of life: the pools that are its to probe. One that nobody alive probes becomes its
-- own, and so stays as long as it lives.
function roster.elect(member, alive_ms)
  local mine = {}
  for pool in pairs(member.pools or {}) do
    local field = 'prober ' .. pool
    local holder = read(meta, field)
    if holder ~= member.id and not (holder and is_alive(holder, alive_ms)) then
      write(meta, field, member.id)
      holder = member.id
      -- What the last one was at is begun anew.
      for id, replica in pairs(capacity.replicas()) do
        if replica.pool == pool and replica.probed then
          set_score(timers, 'probe ' .. id, now_ms)
        end
      end
    end
    if holder == member.id then
      mine[#mine + 1] = pool
    end
  end
  return mine
end

-- It serves these pools no more.
function roster.resign(member_id, pools)
  for pool in pairs(pools or {}) do
    if read(meta, 'prober ' .. pool) == member_id then
      write(meta, 'prober ' .. pool, false)
    end
  end
end

-- A probe is due: the pool's prober is told. One that runs the model takes a place like a prompt, and
-- where there is none those that run there tell enough.
function roster.probe(id)
  local replica, probe = capacity.replica(id), probe_of(id)
  if not (replica and probe) then
    return
  end
  local had_place = replica.probing_until
  replica.probing, replica.probing_until = nil, nil
  local prober = read(meta, 'prober ' .. replica.pool)
  local next_at = now_ms + probe.period_ms
  if prober and not (probe.post_data and capacity.taken(id) >= replica.max_inflight) then
    replica.probing = next_sequence()
    local given_up_at = now_ms + probe.timeout_ms + REPORT_MS
    replica.probing_until = probe.post_data and given_up_at or nil
    -- A place that is kept for a probe comes back as soon as that is given up.
    next_at = replica.probing_until or math.max(next_at, given_up_at)
    tell(prober, {
      id = id, probe = {
        number = replica.probing, url = replica.url, credentials = replica.credentials, path = probe.path,
        post_data = probe.post_data, timeout_ms = probe.timeout_ms,
      },
    })
  end
  capacity.save(replica)
  set_score(timers, 'probe ' .. id, next_at)
  if had_place or replica.probing_until then
    has_changed(replica.pool)
  end
end

local function judge(replica, probe, ok, reason)
  local streak = replica.streak or 0
  streak = ok and math.max(streak, 0) + 1 or math.min(streak, 0) - 1
  replica.streak = streak
  local health, rests = replica.health, replica.down_until
  if ok and streak >= probe.success_threshold then
    if health == 'starting' or (health == 'down' and not rests) then
      replica.health = 'up'
    elseif probe.post_data then
      -- The model has answered: that is what a trial would show.
      replica.health, replica.down_until, replica.trial, replica.strikes = 'up', nil, nil, nil
    end
    if replica.health == 'up' then
      replica.reason = nil
    end
  elseif not ok then
    local is_early = health == 'starting' and now_ms < replica.since + probe.initial_delay_ms
    if -streak >= probe.failure_threshold and not is_early then
      replica.health, replica.down_until, replica.trial = 'down', nil, nil
    end
    replica.reason = reason
  end
end

-- What came of a probe; false where nobody waits for it any more.
function roster.probed(id, number, ok, reason)
  local replica, probe = capacity.replica(id), probe_of(id)
  if not (replica and probe) or replica.probing ~= number then
    return false
  end
  local had_place, health, strikes = replica.probing_until, replica.health, replica.strikes
  replica.probing, replica.probing_until = nil, nil
  judge(replica, probe, ok, reason)
  capacity.save(replica)
  set_score(timers, 'probe ' .. id, now_ms + probe.period_ms)
  if had_place or health ~= replica.health or strikes ~= replica.strikes then
    has_changed(replica.pool)
  end
  return true
end
