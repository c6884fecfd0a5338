#!lua
--[[
claim: a request's Idempotency-Key. Whoever is first says which request the key stands for.

KEYS, ARGV: see lib/step.lua; KEYS[32]: the key's own.
args: id (of the request it shall stand for), content (hash of what is asked), failed (the request that
  came to nothing, if that is why it is claimed again), keep_ms.
result: {id, content} as the key stands now: of several who claim it, all are told the same.
Safe to repeat.
]]
-- use step

local name = KEYS[FIRST_OWN_KEY]
local stored = redis.call('GET', name)
local id, content = args.id, args.content
if stored then
  local known_id, known_content = stored:match('^(%S+) (%S+)$')
  if known_content ~= content or known_id ~= args.failed then
    id, content = known_id, known_content
  end
end
if not stored or id == args.id then
  redis.call('SET', name, id .. ' ' .. content, 'PX', whole(args.keep_ms))
end
return cjson.encode({ now = now_ms, result = { id = id, content = content } })
