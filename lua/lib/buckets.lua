-- Token buckets: what rate limits and quotas count with. A bucket starts full and is drawn from by
-- requests; it fills by `fill` tokens in each `interval`, evenly or at the end of each, up to its
-- capacity; with `delay` it begins to fill only after the time that it takes to fill, counted from
-- the first draw. A full bucket has no history and is not stored. Settlement may leave a level below 0.
--
-- Levels are tokens times interval: with whole numbers in a policy no time is ever rounded.
-- Stored as 'level from wait_until held_for capacity fill interval since', where `from` is the time up
-- to which the level holds.
--
-- A quota that cannot pay for the request which is first is held for it: `wait_until` its refill
-- time, or until that request is gone. Meanwhile it is closed to everybody: nobody behind may use
-- up what the first one saves for.

local buckets = {}
-- private
local stored_buckets, touched
at_start(function()
  stored_buckets, touched = cached(stored_buckets, key.buckets), fresh(touched)
end)
local FORGOTTEN_A_STEP = 8

local function fill_up(bucket, state)
  if state.level >= bucket.full or now_ms <= state.from then
    return
  end
  if bucket.even then
    state.level = state.level + bucket.fill * (now_ms - state.from)
    state.from = now_ms
  else
    local fills = math.floor((now_ms - state.from) / bucket.interval)
    state.level = state.level + fills * bucket.fill * bucket.interval
    state.from = state.from + fills * bucket.interval
  end
  state.level = math.min(state.level, bucket.full)
end

local function state_of(limiter)
  local state = limiter.state
  if state then
    return state
  end
  local bucket = limiter.bucket
  bucket.full = bucket.capacity * bucket.interval
  local stored = read(stored_buckets, limiter.name)
  if stored then
    local level, from, wait_until, held_for, stamp =
      stored:match('^(%S+) (%S+) (%S+) (%S+) (.*)$')
    state = { level = tonumber(level), from = tonumber(from), wait_until = tonumber(wait_until), held_for = held_for }
    if stamp ~= bucket.stamp then
      -- The limit has changed: the tokens stay, as far as they fit, and who is first is asked again.
      local interval = tonumber(stamp:match('^%S+ %S+ (%S+)'))
      if interval ~= bucket.interval then
        state.level = math.floor(state.level / interval * bucket.interval)
      end
      state.wait_until, state.held_for = 0, '-'
      touched[limiter.name] = limiter
    end
    state.level = math.min(state.level, bucket.full)
    fill_up(bucket, state)
  else
    state = { level = bucket.full, from = now_ms, wait_until = 0, held_for = '-' }
  end
  limiter.state = state
  return state
end

local function touch(limiter)
  touched[limiter.name] = limiter
end

function buckets.fetch(names)
  if not limiters.some_buckets then
    return
  end
  local those = {}
  for _, name in ipairs(names) do
    if limiters.get(name).bucket then
      those[#those + 1] = name
    end
  end
  fetch(stored_buckets, those)
end

-- Whether a quota is held for a request that waits for its refill.
function buckets.closed(limiter)
  return state_of(limiter).wait_until > 0
end

-- Milliseconds until so many tokens are there: 0 for now, nil for never.
function buckets.ms_until(limiter, tokens)
  local bucket, state = limiter.bucket, state_of(limiter)
  local need = tokens * bucket.interval
  if need > bucket.full then
    return nil
  end
  if state.level >= need then
    return 0
  end
  local late = math.max(0, state.from - now_ms)
  if bucket.even then
    return late + math.ceil((need - state.level) / bucket.fill)
  end
  local fills = math.ceil((need - state.level) / (bucket.fill * bucket.interval))
  return state.from + fills * bucket.interval - now_ms
end

function buckets.tokens(limiter)
  return state_of(limiter).level / limiter.bucket.interval
end

-- Takes tokens; a negative number gives some back.
function buckets.draw(limiter, tokens)
  local bucket, state = limiter.bucket, state_of(limiter)
  if state.level >= bucket.full then
    state.from = now_ms + (bucket.delay and math.ceil(bucket.full / bucket.fill) or 0)
  end
  state.level = math.min(bucket.full, state.level - tokens * bucket.interval)
  touch(limiter)
end

-- Gives tokens back to a quota whose limit was taken away, for when it is set again.
function buckets.give_back_gone(name, tokens)
  local stored = read(stored_buckets, name)
  if stored then
    local level, rest, capacity, interval = stored:match('^(%S+) (%S+ %S+ %S+ (%S+) %S+ (%S+) .*)$')
    level = math.min(capacity * interval, level + tokens * interval)
    write(stored_buckets, name, string.format('%.17g ', level) .. rest)
  end
end

function buckets.hold(limiter, id, tokens)
  local state = state_of(limiter)
  state.wait_until, state.held_for = now_ms + buckets.ms_until(limiter, tokens), id
  set_score(timers, 'bucket ' .. limiter.name, state.wait_until)
  touch(limiter)
end

-- The next in the admit loop may be another: the quota is asked again.
function buckets.let_go(limiter)
  local state = state_of(limiter)
  if state.wait_until > 0 then
    state.wait_until, state.held_for = 0, '-'
    set_score(timers, 'bucket ' .. limiter.name, false)
    touch(limiter)
  end
end

function buckets.held_for(limiter)
  return state_of(limiter).held_for
end

-- Writes what changed and forgets a few that have filled up.
function buckets.save()
  if not next(touched) then
    flush(stored_buckets)
    return
  end
  local full_at = scored(nil, key.full_at)
  for name, limiter in pairs(touched) do
    local bucket, state = limiter.bucket, limiter.state
    if state.level >= bucket.full and state.wait_until == 0 then
      write(stored_buckets, name, false)
      set_score(full_at, name, false)
    else
      write(stored_buckets, name, string.format('%.17g %.0f %.0f %s %s',
        state.level, state.from, state.wait_until, state.held_for, bucket.stamp))
      set_score(full_at, name, now_ms + buckets.ms_until(limiter, bucket.capacity))
    end
  end
  touched = {}
  flush_scores(full_at)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', key.full_at, '-inf', now_ms, 'LIMIT', 0, FORGOTTEN_A_STEP)) do
    local stored = read(stored_buckets, name)
    if stored and not stored:match('^%S+ %S+ 0 ') then
      -- Still held for somebody: a sweep is about to let it go.
      redis.call('ZADD', key.full_at, now_ms + 1000, name)
    else
      -- With another rule than it was written by it may fill up later.
      local limiter = limiters.get(name)
      local full_in = stored and limiter.bucket and buckets.ms_until(limiter, limiter.bucket.capacity) or 0
      if full_in > 0 then
        redis.call('ZADD', key.full_at, now_ms + full_in, name)
      else
        redis.call('ZREM', key.full_at, name)
        write(stored_buckets, name, false)
      end
    end
  end
  flush(stored_buckets)
end

-- Whether a request may take from a limiter now. A quota is open unless it is held: whether it can
-- pay is asked for the one that is first.
function limiters.is_open(name)
  local limiter = limiters.get(name)
  if limiter.bucket then
    return not buckets.closed(limiter)
  end
  return limiter.taken < limiter.limit
end

-- The first limiter of a path that is closed, or nil when a request that needs them all may go.
function limiters.first_closed(path)
  local needs = limiters.of(path)
  for i = 1, #needs do
    local limiter = needs[i]
    if limiter.taken >= limiter.limit or (limiter.bucket and buckets.closed(limiter)) then
      return limiter
    end
  end
  return nil
end

-- Of the quotas of a path, the first that cannot pay so much now.
function limiters.first_short(path, cost)
  local needs = limiters.of(path)
  for i = 1, #needs do
    local limiter = needs[i]
    if limiter.bucket and buckets.ms_until(limiter, cost) ~= 0 then
      return limiter
    end
  end
  return nil
end
