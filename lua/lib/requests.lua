-- The record of a request and the moves of its life. Each live request has exactly one timer:
--   waiting: its deadline. admitted: begin_by, a flow: end_by. running: the sooner of lease_until
--   and end_by. An ended one: when its record is forgotten.
-- Each end goes through requests.finish, so a request ends once and leaves nothing behind.

local requests = {}

function requests.load(id)
  local stored = redis.call('HGET', key.requests, id)
  if not stored then
    return nil
  end
  local request = cjson.decode(stored)
  request.id = id
  return request
end

local function save(request)
  local id = request.id
  request.id = nil
  redis.call('HSET', key.requests, id, cjson.encode(request))
  request.id = id
end
requests.save = save

function requests.ended(id)
  local stored = redis.call('HGET', key.ended, id)
  return stored and cjson.decode(stored) or nil
end

local function set_timer(request, at_ms)
  redis.call('ZADD', key.timers, at_ms, request.id)
end
requests.set_timer = set_timer

local function waiting_member(request)
  return string.format('%s %s %s %.0f', request.queue, pad_sequence(request.sequence), request.id, request.cost)
end

-- Joins its queue: at the end, or, when it comes back, at the place its sequence gives it.
function requests.enqueue(request, returns)
  local path = tree.path(request.queue)
  local head = standing.head(request.queue)
  tree.arrive(path, returns)
  redis.call('ZADD', key.waiting, 0, waiting_member(request))
  if not head or request.sequence < head.sequence then
    standing.remove(request.queue)
    standing.put(request.queue, request)
  end
  request.state = 'waiting'
  save(request)
  set_timer(request, request.deadline)
end

local function leave_queue(request)
  local head = standing.head(request.queue)
  redis.call('ZREM', key.waiting, waiting_member(request))
  tree.leave(tree.path(request.queue))
  if head and head.id == request.id then
    standing.remove(request.queue)
    local next_head = standing.head(request.queue)
    if next_head then
      standing.put(request.queue, next_head)
    end
  end
end

-- A prompt goes to BullMQ under a new attempt number: BullMQ ignores a job id that it has seen.
local function offer(request)
  request.attempt = (request.attempt or 0) + 1
  redis.call('ZADD', key.outbox, now_ms + args.offer_again_ms, request.id .. ' ' .. request.attempt)
  dispatch[#dispatch + 1] = { id = request.id, attempt = request.attempt, pool = request.pool }
  set_timer(request, math.min(now_ms + request.begin_ms, request.end_by))
end

local function withdraw(request)
  if request.attempt then
    redis.call('ZREM', key.outbox, request.id .. ' ' .. request.attempt)
  end
end

-- Called by the admit loop, which has taken the slots.
function requests.admitted(request)
  request.state = 'admitted'
  request.admitted_at = now_ms
  request.end_by = now_ms + request.max_inflight_ms
  if request.pool then
    offer(request)
  else
    set_timer(request, request.end_by)
  end
  save(request)
  tell(request.owner, { id = request.id, state = 'admitted' })
end

local function drop_replica(request)
  if request.replica then
    limiters.give_back('replica:' .. request.replica)
    request.replica = nil
  end
end

local function release(request)
  drop_replica(request)
  for _, name in ipairs(tree.path(request.queue).limiters) do
    limiters.give_back(name)
    open[name] = true
  end
end

-- admitted -> waiting: no worker began it. Its slots serve others, its place is kept, and so is its
-- deadline.
function requests.put_back(request)
  if request.deadline <= now_ms then
    requests.finish(request, {
      state = 'rejected', code = 'queue_timeout', message = 'no worker began it within its time in the queue',
    })
    return
  end
  withdraw(request)
  release(request)
  request.admitted_at, request.end_by = nil, nil
  requests.enqueue(request, request.cost)
end

-- A prompt that no worker began has cost nothing but its place; else the stated tokens count.
local function actual_cost(request, outcome)
  if request.pool and not request.began then
    return 1
  end
  return math.min(math.max(outcome.tokens or request.cost, 1), 10000000)
end

-- Ends a request from any state. `outcome`: state, code, message, tokens (actual cost).
function requests.finish(request, outcome)
  local id = request.id
  if request.state == 'waiting' then
    leave_queue(request)
  else
    withdraw(request)
    release(request)
    tree.settle(tree.path(request.queue), request.cost, actual_cost(request, outcome))
  end
  redis.call('HDEL', key.requests, id)
  if request.bytes then
    redis.call('HDEL', key.bodies, id)
    redis.call('HINCRBY', key.meta, 'body_bytes', -request.bytes)
  end
  if request.owner then
    redis.call('ZREM', key.owned, request.owner .. ' ' .. id)
  end
  local ended = {
    state = outcome.state, code = request.cancel_code or outcome.code, message = outcome.message,
    kind = request.kind, control_point = request.control_point, attempt = request.attempt,
    created_at = request.created_at, admitted_at = request.admitted_at,
    started_at = request.started_at, ended_at = now_ms,
  }
  redis.call('HSET', key.ended, id, cjson.encode(ended))
  redis.call('ZADD', key.timers, now_ms + request.keep_ms, id)
  tell(request.owner, { id = id, state = outcome.state, code = ended.code })
  if request.worker and outcome.state ~= 'done' then
    tell(request.worker, { id = id, attempt = request.attempt, abort = true })
  end
  return ended
end

-- running -> admitted: the attempt came to nothing. Same slots, same lease, a new attempt; after
-- too many the request has failed. A worker that was stopped in order is no failure of the prompt.
function requests.retry(request, code, message)
  request.failures = (request.failures or 0) + (code == 'unavailable' and 0 or 1)
  if request.cancelled then
    requests.finish(request, { state = 'cancelled', code = 'cancelled', message = request.cancelled })
  elseif request.failures >= request.max_attempts then
    requests.finish(request, { state = 'failed', code = code, message = message })
  else
    drop_replica(request)
    tell(request.worker, { id = request.id, attempt = request.attempt, abort = true })
    request.state, request.worker, request.token = 'admitted', nil, nil
    request.started_at, request.lease_until = nil, nil
    offer(request)
    save(request)
  end
end

-- A client that is gone or asks for it. What runs keeps its slots until its worker confirms. `code`
-- is what a client sees that is there all the same.
function requests.cancel(request, message, code)
  if request.state == 'running' then
    if not request.cancelled then
      request.cancelled, request.cancel_code = message, code
      save(request)
    end
    tell(request.worker, { id = request.id, attempt = request.attempt, abort = true })
    return 'cancelling'
  end
  requests.finish(request, { state = 'cancelled', code = code or 'cancelled', message = message })
  return 'cancelled'
end
