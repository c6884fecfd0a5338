#!lua flags=allow-oom
--[[
renew: the heartbeat of what a worker runs.

KEYS, ARGV: see lib/step.lua.
args: items [{id, attempt, token}], heartbeat_ms.
result: for each item {id, status: 'kept' | 'abort' (kept, but its client wants it ended) | 'lost'
  (the lease is over or somebody else's: stop at once, nothing the holder says is heard any more)}.
Safe to repeat: only moves lease_until, never past end_by.
]]
-- use step limiters buckets tree shares standing ended records requests admit close

local answers = {}
for _, item in ipairs(args.items) do
  local request = requests.load(item.id)
  local status = 'lost'
  if request and request.state == 'running' and request.attempt == item.attempt and request.token == item.token
    and request.lease_until > now_ms and request.end_by > now_ms then
    status = request.cancelled and 'abort' or 'kept'
    request.lease_until = now_ms + args.heartbeat_ms
    requests.save(request)
    requests.set_timer(request, math.min(request.lease_until, request.end_by))
  end
  answers[#answers + 1] = { id = item.id, status = status }
end
return close(answers)
