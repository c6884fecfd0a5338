--[[
rekey: after a change of policies, live requests go to the queues that the new ones give them. Who
waits keeps the place that its age gives it in its new queue; who runs keeps its lease and counts
against new limits at once, also above them. Nobody is admitted until the last page is done.

KEYS, ARGV: see lib/step.lua.
args: version (of the policies that the queues were computed with), items [{id, queue}], done (bool:
  every live request was looked at).
result: {status: 'rekeyed'} or {status: 'stale_version', version}: begin again with that one.
Safe to repeat.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests admit close

local rekeying = tonumber(read(meta, 'rekeying') or 0)
if rekeying ~= args.version then
  return close({ status = rekeying == 0 and 'rekeyed' or 'stale_version', version = rekeying })
end
for _, item in ipairs(args.items) do
  local request = requests.load(item.id)
  if request then
    requests.key_anew(request, tree.fold(item.queue))
  end
end
if args.done then
  write(meta, 'rekeying', false)
end
return close({ status = 'rekeyed' })
