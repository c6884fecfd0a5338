#!lua flags=allow-oom
--[[
cancel: clients are gone, or ask for it.

KEYS, ARGV: see lib/step.lua.
args: items [{id, message}].
result: for each item {status: 'cancelled'} from the queue or before its start, {status:
  'cancelling'} while it runs: its slots are free when its worker confirms, or its heartbeat lapses,
  {status: 'already', state}, {status: 'unknown'}.
Safe to repeat.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests admit close

local results = {}
for i, item in ipairs(args.items) do
  local request = requests.load(item.id)
  if request then
    results[i] = { status = requests.cancel(request, item.message) }
    admit()
  else
    local past = ended.get(item.id)
    results[i] = { status = past and 'already' or 'unknown', state = past and past.state }
  end
end
return close(results)
