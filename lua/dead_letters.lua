#!lua flags=allow-oom
--[[
dead_letters: what became of prompts that failed on too many replicas, and away with it.

KEYS, ARGV: see lib/step.lua.
args: what 'list' (after: how many of the newest to pass over, count) | 'read' (id) | 'drop' (ids) |
  'purge'.
result: list {letters [{id, and the fields of lib/dead.lua}], newest first,
  total}; read {letter, body (what the replicas were sent)} or {}; drop, purge {dropped (how many), left
  (how many are left: a purge is bounded, and goes on with the next call)}.
Safe to repeat.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests admit close

-- Letters that one purge takes.
local PURGED_A_STEP = 100

local function letter_of(id)
  local stored = redis.call('HGET', key.dead, id)
  local letter = stored and cjson.decode(stored) or nil
  if letter then
    letter.id = id
  end
  return letter
end

dead.trim()
if args.what == 'list' then
  local ids = redis.call('ZREVRANGE', key.dead_at, whole(args.after), whole(args.after + args.count - 1))
  local letters = {}
  for i, id in ipairs(ids) do
    letters[i] = letter_of(id)
  end
  return close({ letters = letters, total = redis.call('ZCARD', key.dead_at) })
elseif args.what == 'read' then
  local letter = letter_of(args.id)
  return close({ letter = letter, body = letter and redis.call('HGET', key.dead_bodies, args.id) })
end
local ids = args.ids or redis.call('ZRANGE', key.dead_at, '0', whole(PURGED_A_STEP - 1))
local dropped = 0
for _, id in ipairs(ids) do
  if dead.drop(id) then
    dropped = dropped + 1
  end
end
dead.trim()
return close({ dropped = dropped, left = redis.call('ZCARD', key.dead_at) })
