#!lua flags=allow-oom
--[[
finish: holders are done with requests. Frees their slots, settles their tokens, admits the next.

KEYS, ARGV: see lib/step.lua; from KEYS[32] on: the streams of those that have an answer.
args: items [{id, attempt and token (prompts: only the holder is heard), outcome 'done' | 'failed' |
  'cancelled' | 'expired' | 'retry', code, message, tokens (actual cost), replica_down_ms (its
  replica cannot serve: it is left alone that long, and longer when it fails again), is_sure (that it is
  not this prompt's doing), answer (which of the answers is its own, from 1), at
  (the id of its entry in the stream, which follows those that the worker has appended)}].
From ARGV[4] on: the answers, as they are kept in the streams. Followers are told short ones.
result: for each item {status: 'ended', state}, {status: 'retried', state}, {status: 'already',
  state} for a repeat, {status: 'stale', state} for a holder whose lease is over, without a state for
  what is not known, or no flow.
Safe to repeat: the first one ends the request; tokens settle once.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests admit estimate close

-- A longer answer is read from its stream: what is published fills the buffer of a slow gateway.
local TOLD_BYTES = 65536

-- A prompt that failed elsewhere may be what takes its replicas down: what it says is no evidence, unless it
-- is sure.
local function is_evidence(request, item)
  return item.replica_down_ms and request.replica and (item.is_sure or (request.failures or 0) == 0)
end

local function retry(request, item)
  local failed_there = item.replica_down_ms ~= nil or item.code ~= 'unavailable'
  requests.retry(request, item.code, item.message, failed_there)
  local still = requests.load(item.id)
  return { status = still and 'retried' or 'ended', state = still and still.state or ended.get(item.id).state }
end

local function finish(item)
  local request = requests.load(item.id)
  if not request then
    local past = ended.get(item.id)
    return { status = past and 'already' or 'stale', state = past and past.state }
  end
  if request.pool and not item.attempt then
    -- Somebody takes a prompt for a flow.
    return { status = 'stale' }
  end
  local holds = request.state == 'admitted'
  if request.pool then
    holds = request.state == 'running' and request.attempt == item.attempt and request.token == item.token
  end
  -- A flow whose heartbeat is late has its slots until a sweep has ended it; a prompt may run elsewhere.
  local is_late = request.pool and (request.lease_until or math.huge) <= now_ms
  if not holds or request.end_by <= now_ms or is_late then
    return { status = 'stale', state = request.state }
  end
  local replica, started_at = request.replica, request.started_at
  local has_failed = is_evidence(request, item)
  if item.outcome == 'retry' then
    local result = retry(request, item)
    if has_failed then
      capacity.failed(replica, started_at, item.replica_down_ms, item.message, item.is_sure)
    end
    return result
  end
  if item.outcome == 'done' and replica then
    capacity.served(replica, started_at)
  end
  local answer
  if item.answer then
    local stream = KEYS[FIRST_OWN_KEY + item.answer - 1]
    answer = ARGV[FIRST_BYTES + item.answer - 1]
    redis.call('XADD', stream, item.at, 'answer', answer)
    redis.call('PEXPIRE', stream, whole(ended.keep_ms(request)))
  end
  -- Without a slot there is nothing that others would wait for: how long it took says nothing.
  if item.outcome == 'done' and limiters.some_slots(tree.path(request.queue)) then
    estimate.served(now_ms - request.admitted_at)
  end
  requests.finish(request, {
    state = item.outcome, code = item.code, message = item.message, tokens = item.tokens, at = item.at,
    answer = answer and #answer <= TOLD_BYTES and answer or nil,
  })
  if has_failed then
    capacity.failed(replica, started_at, item.replica_down_ms, item.message, item.is_sure)
  end
  return { status = 'ended', state = item.outcome }
end

local ids, paths_used, names = {}, {}, {}
for i, item in ipairs(args.items) do
  ids[i] = item.id
end
requests.fetch(ids)
for _, id in ipairs(ids) do
  local request = requests.load(id)
  if request then
    local path = tree.path(request.queue)
    paths_used[#paths_used + 1] = path
    for _, name in ipairs(path.limiters) do
      names[#names + 1] = name
    end
  end
end
limiters.fetch(names)
standing.fetch_gates(names)
buckets.fetch(names)
tree.fetch(paths_used)

local results = {}
for i, item in ipairs(args.items) do
  results[i] = finish(item)
  admit()
end
return close(results)
