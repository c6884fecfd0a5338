#!lua flags=allow-oom
--[[
finish: a holder is done with a request. Frees its slots, settles its tokens, admits the next.

KEYS, ARGV: see lib/step.lua; KEYS[21]: the stream of the request, which gets the answer.
args: id, attempt and token (prompts: only the holder is heard), outcome 'done' | 'failed' |
  'cancelled' | 'expired' | 'retry', code, message, tokens (actual cost), replica_down_ms (with
  'retry': the replica is left alone that long), offer_again_ms.
ARGV[3]: the answer, as it is kept in the stream; empty for none.
result: {status: 'ended', state}, {status: 'retried' }, {status: 'already', state} for a repeat,
  {status: 'stale'} for a holder whose lease is over.
Safe to repeat: the first one ends the request; tokens settle once.
]]
-- use step limiters tree standing requests capacity admit estimate close

local request = requests.load(args.id)
if not request then
  local past = requests.ended(args.id)
  return close({ status = past and 'already' or 'stale', state = past and past.state })
end
local holds = request.state == 'running' and request.attempt == args.attempt and request.token == args.token
if request.kind == 'flow' then
  holds = request.state == 'admitted'
end
if not holds or request.end_by <= now_ms or (request.lease_until or math.huge) <= now_ms then
  return close({ status = 'stale', state = request.state })
end

if args.outcome == 'retry' then
  request.failed_on = request.replica
  local failed_on = request.replica
  requests.retry(request, args.code, args.message)
  if failed_on and args.replica_down_ms then
    capacity.mark_down(failed_on, args.replica_down_ms)
  end
  local still = requests.load(args.id)
  return close({ status = still and 'retried' or 'ended', state = still and still.state or requests.ended(args.id).state })
end

local answer = ARGV[3] or ''
if #answer > 0 then
  redis.call('XADD', KEYS[21], '*', 'type', 'answer', 'data', answer)
  redis.call('PEXPIRE', KEYS[21], request.keep_ms)
end
if args.outcome == 'done' then
  estimate.served(now_ms - request.admitted_at)
end
requests.finish(request, { state = args.outcome, code = args.code, message = args.message, tokens = args.tokens })
return close({ status = 'ended', state = args.outcome })
