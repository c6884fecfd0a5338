--[[
submit: a request arrives. Rejects it at once, or queues it, and admits what may go.

KEYS, ARGV: see lib/step.lua.
args: id, id_time (ms, when the id was made), id_age_ms (an unknown id older than this is not new),
  version (of the policies the schedule was computed with), kind 'prompt' | 'flow', control_point,
  labels, queue (policy/workload@weight/fairness key/limiters), cost (tokens), pool (prompts),
  owner (gateway that ends with it, absent for jobs), timeout_ms (in the queue), max_inflight_ms,
  keep_ms (its record after the end, at least id_age_ms), begin_ms, offer_again_ms, max_attempts,
  body_limit (bytes of all bodies), waiting_limit (requests).
ARGV[3]: what the replica is sent.
result: {status: 'accepted', state, position, ahead, estimated_start_ms}, {status: 'known', state}
  for a repeat, {status: 'stale_version', version}, or {status: 'rejected', reason: 'queue_full' |
  'queue_timeout' | 'stale_id', retry_after_ms}.
Safe to repeat: a live or remembered id is only reported; an id that is older than records are kept
is refused, so a late repeat never runs twice.
]]
-- use step limiters tree standing requests capacity admit estimate close

local function reject(reason, retry_after_ms)
  return close({ status = 'rejected', reason = reason, retry_after_ms = retry_after_ms })
end

local live = requests.load(args.id)
if live then
  return close({ status = 'known', state = live.state })
end
local past = requests.ended(args.id)
if past then
  return close({ status = 'known', state = past.state })
end
if args.id_time < now_ms - args.id_age_ms then
  return reject('stale_id')
end
local version = tonumber(redis.call('HGET', key.meta, 'version') or 0)
if args.version ~= version then
  return close({ status = 'stale_version', version = version })
end
if args.timeout_ms <= 0 then
  return reject('queue_timeout', 1000)
end
local body = ARGV[3] or ''
local held_bytes = tonumber(redis.call('HGET', key.meta, 'body_bytes') or 0)
if redis.call('ZCARD', key.waiting) >= args.waiting_limit or held_bytes + #body > args.body_limit then
  return reject('queue_full', estimate.wait_ms(args.queue, 1))
end

local queue = tree.fold(args.queue)
local request = {
  id = args.id, kind = args.kind, control_point = args.control_point, labels = args.labels,
  queue = queue, cost = args.cost, pool = args.pool, owner = args.owner,
  created_at = now_ms, deadline = now_ms + args.timeout_ms, max_inflight_ms = args.max_inflight_ms,
  keep_ms = math.max(args.keep_ms, args.id_age_ms), begin_ms = args.begin_ms, max_attempts = args.max_attempts,
  version = args.version, sequence = redis.call('HINCRBY', key.meta, 'sequence', 1),
}
if #body > 0 then
  request.bytes = #body
  redis.call('HSET', key.bodies, request.id, body)
  redis.call('HINCRBY', key.meta, 'body_bytes', #body)
end
if request.owner then
  redis.call('ZADD', key.owned, 0, request.owner .. ' ' .. request.id)
end
requests.enqueue(request)
admit()
local current = requests.load(request.id)
local result = { status = 'accepted', state = current.state }
if current.state == 'waiting' then
  result.position = estimate.position(current)
  result.ahead = estimate.ahead(current.queue)
  result.estimated_start_ms = estimate.wait_ms(current.queue, result.ahead)
end
return close(result)
