#!lua flags=allow-oom
--[[
renew: the heartbeat of what a worker runs, and of flows.

KEYS, ARGV: see lib/step.lua.
args: items, of a prompt {id, attempt, token}, of a flow {id, heartbeat (bool)}; heartbeat_ms.
  A flow's caller has heard that it was admitted: it does not end with its gateway any more. With
  `heartbeat` it ends without another one within heartbeat_ms.
result: for each item {id, status: 'kept' | 'abort' (kept, but its client wants it ended) | 'lost'
  (the lease is over or somebody else's: stop at once, nothing the holder says is heard any more),
  lease_ms (of a flow that is kept: for how long), slots (bool: whether it holds any)}.
Safe to repeat: only moves lease_until, never past end_by.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests admit close

local function keep_until(request)
  local kept_until = math.min(request.lease_until or request.end_by, request.end_by)
  requests.save(request)
  requests.set_timer(request, kept_until)
  return kept_until - now_ms
end

local function keep_prompt(request, item)
  if request.state ~= 'running' or request.attempt ~= item.attempt or request.token ~= item.token
    or request.lease_until <= now_ms or request.end_by <= now_ms then
    return { id = item.id, status = 'lost' }
  end
  request.lease_until = now_ms + args.heartbeat_ms
  keep_until(request)
  return { id = item.id, status = request.cancelled and 'abort' or 'kept' }
end

local function keep_flow(request, item)
  -- As long as no sweep has ended it, its slots are its own.
  if request.state ~= 'admitted' or request.end_by <= now_ms then
    return { id = item.id, status = 'lost' }
  end
  if request.owner then
    requests.disown(request)
  end
  if item.heartbeat then
    request.lease_until = now_ms + args.heartbeat_ms
  end
  local slots = limiters.some_slots(tree.path(request.queue))
  return { id = item.id, status = 'kept', lease_ms = keep_until(request), slots = slots }
end

local ids = {}
for i, item in ipairs(args.items) do
  ids[i] = item.id
end
requests.fetch(ids)
local answers = {}
for i, item in ipairs(args.items) do
  local request = requests.load(item.id)
  if not request then
    answers[i] = { id = item.id, status = 'lost' }
  elseif request.pool or item.attempt then
    answers[i] = keep_prompt(request, item)
  else
    answers[i] = keep_flow(request, item)
  end
end
return close(answers)
