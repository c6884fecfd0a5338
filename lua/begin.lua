#!lua flags=allow-oom
--[[
begin: a worker starts attempts at prompts. The fence of the hand-off: BullMQ may deliver a job
twice, late, or to two workers; exactly one of them gets the prompt.

KEYS, ARGV: see lib/step.lua.
args: items [{id, attempt, worker, token (unique to this delivery)}], heartbeat_ms.
result: for each item {status: 'run', body, replica: {id, ...}, end_by, owner (the gateway that is
  told; a job has none), keep_ms (how long its answer is kept), cancelled}, {status: 'stale', state} for
  whoever must drop it (also where only replicas that failed it have room: it is offered again when
  another one has), or {status: 'put_back'} where no replica is usable: the prompt waits again at its
  old place.
Safe to repeat: with the token that won, the answer is the same.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests admit close

local function begin(item)
  local request = requests.load(item.id)
  if not request then
    local past = ended.get(item.id)
    return { status = 'stale', state = past and past.state or 'unknown' }
  end
  local mine = request.token == item.token
  if request.attempt ~= item.attempt or not (request.state == 'admitted' or (request.state == 'running' and mine)) then
    return { status = 'stale', state = request.state }
  end
  if request.state == 'admitted' then
    local replica, may_wait = capacity.choose(request)
    if may_wait then
      requests.defer(request)
      return { status = 'stale', state = request.state }
    elseif not replica then
      if is_frozen() then
        return { status = 'stale', state = request.state }
      end
      requests.put_back(request)
      return { status = 'put_back' }
    end
    set_score(outbox, request.id .. ' ' .. request.attempt, false)
    requests.no_longer_deferred(request)
    capacity.enter(replica, request)
    request.state, request.replica, request.began = 'running', replica.id, true
    request.worker, request.token, request.started_at = item.worker, item.token, now_ms
    request.lease_until = now_ms + args.heartbeat_ms
    requests.save(request)
    requests.set_timer(request, math.min(request.lease_until, request.end_by))
    tell_followers(request, {
      id = request.id, state = 'running', attempt = request.attempt,
      queued_ms = request.admitted_at - request.created_at,
    })
  end
  local replica = capacity.replica(request.replica)
  if not replica then
    requests.retry(request, 'unavailable', 'its replica was taken away')
    return { status = 'stale', state = 'admitted' }
  end
  return {
    status = 'run',
    body = requests.body(request),
    replica = replica,
    end_by = request.end_by,
    owner = request.owner,
    keep_ms = ended.keep_ms(request),
    cancelled = request.cancelled,
  }
end

local results = {}
for i, item in ipairs(args.items) do
  results[i] = begin(item)
  admit()
end
return close(results)
