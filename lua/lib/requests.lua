-- The moves of a request's life. Each live request has one timer at most:
--   waiting: its deadline; none is needed behind one in its queue whose deadline is not later.
--   admitted: begin_by. running, and a flow: the sooner of lease_until and end_by.
-- Each end goes through requests.finish, so a request ends once and leaves nothing behind.

-- private
local woken
at_start(function()
  woken = fresh(woken)
end)

-- The one that was before it in its queue is gone, or is another: it needs a timer of its own.
function requests.wake(id)
  local deadline = requests.deadline(id)
  set_score(timers, id, deadline)
  if deadline <= now_ms then
    woken[#woken + 1] = { id = id, deadline = deadline }
  end
end

-- Those woken since the last call whose time is over.
function requests.take_woken()
  local list = woken
  woken = {}
  return list
end

-- Joins its queue: at the end, or, when it comes back, at the place its sequence gives it.
function requests.enqueue(request, returns)
  local queue = request.queue
  tree.arrive(tree.path(queue), returns)
  local head = standing.state(queue)
  standing.line_up(request)
  local behind = request ~= submitting and standing.behind(request)
  if request ~= submitting or request.deadline < standing.last_deadline(queue) then
    set_timer(request, request.deadline)
  end
  if behind then
    requests.wake(behind.id)
  else
    standing.set_last_deadline(queue, request.deadline)
  end
  if not head or request.sequence < head.sequence then
    standing.remove(queue)
    standing.put(queue, request)
  end
  request.state = 'waiting'
  count_waiting(request, 1)
  save(request)
end

-- Takes it out of its queue; who is behind it moves up.
local function leave_queue(request)
  local queue = request.queue
  local behind = standing.behind(request)
  standing.line_off(request)
  count_waiting(request, -1)
  local path = tree.path(queue)
  tree.leave(path)
  if behind then
    requests.wake(behind.id)
  else
    standing.set_last_deadline(queue, nil)
  end
  if standing.state(queue).sequence == request.sequence then
    standing.remove(queue)
    if behind then
      standing.put(queue, behind)
    end
  end
  for _, limiter in ipairs(limiters.of(path)) do
    if limiter.bucket and buckets.held_for(limiter) == request.id then
      buckets.let_go(limiter)
      open[limiter.name] = true
    end
  end
end

-- Rate limits are charged when a request arrives. One that is never admitted has used nothing.
function requests.charge_rates(request, sign)
  for name, tokens in requests.rates(request) do
    local limiter = limiters.get(name)
    if limiter.bucket then
      buckets.draw(limiter, sign * tonumber(tokens))
    end
  end
end

-- A prompt goes to BullMQ under a new attempt number: BullMQ ignores a job id that it has seen.
local function offer(request)
  request.attempt = (request.attempt or 0) + 1
  set_score(outbox, request.id .. ' ' .. request.attempt, now_ms + settings.offer_again_ms)
  dispatch[#dispatch + 1] = { id = request.id, attempt = request.attempt, pool = request.pool }
  set_timer(request, math.min(now_ms + settings.begin_ms, request.end_by))
end

local function withdraw(request)
  if request.attempt then
    set_score(outbox, request.id .. ' ' .. request.attempt, false)
  end
end

-- Takes a unit, or a quota's tokens, of each.
local function take_all(needs, tokens)
  for i = 1, #needs do
    local limiter = needs[i]
    limiters.take(limiter)
    if limiter.bucket then
      buckets.draw(limiter, tokens)
    end
  end
end

-- Gives back a unit of each, and `unused` tokens to quotas.
local function give_back_all(needs, unused)
  for i = 1, #needs do
    local limiter = needs[i]
    limiters.give_back(limiter)
    if not limiter.bucket then
      open[limiter.name] = true
      if unused ~= 0 and is_frozen() then
        buckets.give_back_gone(limiter.name, unused)
      end
    elseif unused ~= 0 then
      buckets.draw(limiter, -unused)
      if unused > 0 and buckets.closed(limiter) then
        buckets.let_go(limiter)
        open[limiter.name] = true
      end
    end
  end
end

-- Gives it its lease on everything it needs.
function requests.admit(request)
  take_all(limiters.of(tree.path(request.queue)), request.cost)
  request.state = 'admitted'
  request.admitted_at = now_text
  request.end_by = now_ms + request.max_inflight_ms
  if request.pool then
    offer(request)
  else
    set_timer(request, request.end_by)
  end
  save(request)
  if request ~= submitting then
    tell_followers(request, { id = request.id, state = 'admitted' })
  end
end

-- The next in line was admitted by the loop: it is no longer one of those who wait.
function requests.left_queue(request)
  count_waiting(request, -1)
end

-- Only replicas that failed it have room now. It keeps its slots and its lease, and is offered again when
-- there may be room at another one, or, after as long as others may take to begin, wherever there is room.
-- Those of a pool stand in `meta`: no more than it takes prompts.
function requests.defer(request)
  if not request.deferred then
    local field = 'deferred ' .. request.pool
    write(meta, field, (read(meta, field) or ' ') .. request.id .. ' ')
    request.deferred = true
    withdraw(request)
    set_timer(request, math.min(now_ms + settings.begin_ms, request.end_by))
    save(request)
  end
end

function requests.no_longer_deferred(request)
  if request.deferred then
    local field = 'deferred ' .. request.pool
    local others = (read(meta, field) or ' '):gsub(' ' .. request.id:gsub('%-', '%%-') .. ' ', ' ', 1)
    write(meta, field, others ~= ' ' and others)
    request.deferred = nil
  end
end

-- A pool may have room where it had none.
function requests.offer_deferred(pool)
  for id in (read(meta, 'deferred ' .. pool) or ''):gmatch('%S+') do
    local request = requests.load(id)
    requests.no_longer_deferred(request)
    offer(request)
    save(request)
  end
end

-- It has waited for another replica for long enough.
function requests.offer_anywhere(request)
  requests.no_longer_deferred(request)
  request.has_waited = true
  offer(request)
  save(request)
end

local function drop_replica(request)
  if request.replica then
    capacity.leave(request)
    requests.offer_deferred(request.pool)
  end
end

local function release(request, unused)
  drop_replica(request)
  give_back_all(limiters.of(tree.path(request.queue)), unused)
end

-- admitted -> waiting: no worker began it. Its slots serve others, its place is kept, and so is its
-- deadline.
function requests.put_back(request)
  request.deadline = request.created_at + request.timeout_ms
  if request.deadline <= now_ms then
    requests.finish(request, {
      state = 'rejected', code = 'queue_timeout', message = 'no worker began it within its time in the queue',
    })
    return
  end
  withdraw(request)
  requests.no_longer_deferred(request)
  release(request, request.cost)
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

-- Ends a request from any state. `outcome`: state, code, message, tokens (actual cost), at (the place of
-- its answer in its stream), answer (as followers are told it).
function requests.finish(request, outcome)
  local id = request.id
  if request.state == 'waiting' then
    leave_queue(request)
    requests.charge_rates(request, -1)
  else
    local actual = actual_cost(request, outcome)
    withdraw(request)
    requests.no_longer_deferred(request)
    release(request, request.cost - actual)
    tree.settle(tree.path(request.queue), request.cost, actual)
  end
  if request.bytes then
    write(bodies, id, false)
    write(meta, 'body_bytes', tonumber(read(meta, 'body_bytes')) - request.bytes)
  end
  local code = request.cancel_code or outcome.code
  local message = outcome.state == 'cancelled' and request.cancelled or outcome.message
  local record = request.changed and encode(request) or request.stored
  if code or message then
    record = record .. '\n' .. cjson.encode({ code = code, message = message })
  end
  ended.put(id, outcome.state, record, request.job)
  set_timer(request, false)
  if request.worker and outcome.state ~= 'done' then
    tell(request.worker, { id = id, attempt = request.attempt, abort = true })
  end
  request.is_over = true
  mark_changed(request)
  live[id] = false
  if request.pool or outcome.state ~= 'done' then
    -- A flow is done when its caller says so.
    tell_followers(request, {
      id = id, state = outcome.state, code = code, at = outcome.at, answer = outcome.answer,
      queued_ms = outcome.at and request.admitted_at - request.created_at or nil,
    })
  end
end

-- running -> admitted: the attempt came to nothing. Same slots, same lease, a new attempt; after
-- too many the request has failed and is a dead letter. What cannot be the prompt's doing, as a replica
-- that it never reached, is no failure of the prompt: its code is 'unavailable'.
function requests.retry(request, code, message, failed_there)
  requests.tell(request, code, message, failed_there)
  request.failures = (request.failures or 0) + (code == 'unavailable' and 0 or 1)
  if request.cancelled then
    requests.finish(request, { state = 'cancelled', code = 'cancelled', message = request.cancelled })
  elseif request.failures >= settings.max_attempts then
    dead.put(request, code, message)
    requests.finish(request, { state = 'failed', code = code, message = message })
  else
    drop_replica(request)
    tell(request.worker, { id = request.id, attempt = request.attempt, abort = true })
    request.state, request.worker, request.token = 'admitted', nil, nil
    request.started_at, request.lease_until, request.has_waited = nil, nil, nil
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

-- A policy has changed what a request waits for or holds: it keeps its place, its lease and what it
-- was charged. Of what it holds, quotas included, it gives back what it does not need any more and
-- takes what is new, also where nothing is left.
function requests.key_anew(request, queue)
  if queue == request.queue then
    return
  end
  if request.state == 'waiting' then
    leave_queue(request)
    requests.set_queue(request, queue)
    requests.enqueue(request)
    return
  end
  local from, to = tree.path(request.queue), tree.path(queue)
  give_back_all(limiters.only_of(from, to), request.cost)
  take_all(limiters.only_of(to, from), request.cost)
  tree.move_held(from, to)
  requests.set_queue(request, queue)
  save(request)
end
