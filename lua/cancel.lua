#!lua flags=allow-oom
--[[
cancel: a client is gone, or asks for it.

KEYS, ARGV: see lib/step.lua.
args: id, message, offer_again_ms.
result: {status: 'cancelled'} from the queue or before its start, {status: 'cancelling'} while it
  runs: its slots are free when its worker confirms, or its heartbeat lapses, {status: 'already',
  state}, {status: 'unknown'}.
Safe to repeat.
]]
-- use step limiters tree standing requests admit close

local request = requests.load(args.id)
if request then
  return close({ status = requests.cancel(request, args.message) })
end
local past = requests.ended(args.id)
return close({ status = past and 'already' or 'unknown', state = past and past.state })
