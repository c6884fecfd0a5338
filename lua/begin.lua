#!lua flags=allow-oom
--[[
begin: a worker starts an attempt at a prompt. The fence of the hand-off: BullMQ may deliver a job
twice, late, or to two workers; exactly one of them gets the prompt.

KEYS, ARGV: see lib/step.lua.
args: id, attempt, worker, token (unique to this delivery), heartbeat_ms, offer_again_ms.
result: {status: 'run', body, replica: {id, ...}, end_by, labels, control_point}, {status: 'stale',
  state} for whoever must drop it, or {status: 'put_back'} where no replica is usable: the prompt
  waits again at its old place.
Safe to repeat: with the token that won, the answer is the same.
]]
-- use step limiters tree standing requests capacity admit close

local request = requests.load(args.id)
if not request then
  local past = requests.ended(args.id)
  return close({ status = 'stale', state = past and past.state or 'unknown' })
end
local mine = request.token == args.token
if request.attempt ~= args.attempt or not (request.state == 'admitted' or (request.state == 'running' and mine)) then
  return close({ status = 'stale', state = request.state })
end
if request.state == 'admitted' then
  local replica_id = capacity.choose(request.pool, request.failed_on)
  if not replica_id then
    requests.put_back(request)
    return close({ status = 'put_back' })
  end
  redis.call('ZREM', key.outbox, request.id .. ' ' .. request.attempt)
  limiters.take('replica:' .. replica_id)
  request.state, request.replica, request.began = 'running', replica_id, true
  request.worker, request.token, request.started_at = args.worker, args.token, now_ms
  request.lease_until = now_ms + args.heartbeat_ms
  requests.save(request)
  requests.set_timer(request, math.min(request.lease_until, request.end_by))
  tell(request.owner, { id = request.id, state = 'running' })
end
local stored = redis.call('HGET', key.replicas, request.replica)
if not stored then
  requests.retry(request, 'unavailable', 'its replica was taken away')
  return close({ status = 'stale', state = 'admitted' })
end
local replica = cjson.decode(stored)
replica.id = request.replica
return close({
  status = 'run',
  body = redis.call('HGET', key.bodies, request.id) or '',
  replica = replica,
  end_by = request.end_by,
  cancelled = request.cancelled,
})
