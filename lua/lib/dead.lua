-- Dead letters: prompts that failed on too many replicas, with what they asked and what became of each
-- attempt. Kept until somebody takes them away, they are old, or newer ones need the room. What was asked
-- stands apart, so that they can be listed without it.

local dead = {}
-- private

-- Letters that one step lets go: keeps a script call short.
local DROPPED_A_STEP = 32

local function bytes()
  return tonumber(read(meta, 'dead_bytes') or 0)
end

-- Says whether there was one.
function dead.drop(id)
  local size = redis.call('HSTRLEN', key.dead, id) + redis.call('HSTRLEN', key.dead_bodies, id)
  redis.call('ZREM', key.dead_at, id)
  redis.call('HDEL', key.dead_bodies, id)
  write(meta, 'dead_bytes', whole(math.max(0, bytes() - size)))
  return redis.call('HDEL', key.dead, id) == 1
end

-- Lets go of what is too old or too much.
function dead.trim()
  local count = redis.call('ZCARD', key.dead_at)
  for _ = 1, DROPPED_A_STEP do
    local oldest = redis.call('ZRANGE', key.dead_at, '0', '0', 'WITHSCORES')
    local expires_at = oldest[1] and tonumber(oldest[2]) + settings.keep_dead_ms
    if not expires_at then
      set_score(timers, 'dead letters', false)
      return
    elseif expires_at > now_ms and count <= settings.dead_letters and bytes() <= settings.dead_letter_bytes then
      set_score(timers, 'dead letters', expires_at)
      return
    end
    dead.drop(oldest[1])
    count = count - 1
  end
  set_score(timers, 'dead letters', now_ms)
end

-- One that is larger than all may be together is not kept.
function dead.put(request, code, message)
  local body = requests.body(request)
  local letter = cjson.encode({
    control_point = requests.control_point(request), labels = requests.labels(request), pool = request.pool,
    cost = request.cost, attempt = request.attempt, created_at = tonumber(request.created_at), died_at = now_ms,
    code = code, message = message, story = request.story, bytes = #body,
  })
  if #letter + #body > settings.dead_letter_bytes then
    return
  end
  redis.call('HSET', key.dead, request.id, letter)
  redis.call('HSET', key.dead_bodies, request.id, body)
  redis.call('ZADD', key.dead_at, now_text, request.id)
  write(meta, 'dead_bytes', whole(bytes() + #letter + #body))
  dead.trim()
end
