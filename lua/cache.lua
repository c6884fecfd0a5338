#!lua
--[[
cache: results that callers keep for each other, in bounded memory: what is soonest to expire goes first.

KEYS, ARGV: see lib/step.lua; KEYS[28]: a hash, name -> 'until value', and '.bytes' of all values;
  KEYS[29]: a zset, name -> until (ms).
args: puts, each a list of name and ttl_ms; drops (names); limit_bytes (one value is within it).
From ARGV[4] on: the value of each put.
result: {evicted}: how many went before their time.
Safe to repeat.
]]
-- use step

-- Removed by one step: what expires in masses goes with those that follow.
local REMOVED_A_STEP = 64

local values, times = KEYS[FIRST_OWN_KEY], KEYS[FIRST_OWN_KEY + 1]
local bytes = tonumber(redis.call('HGET', values, '.bytes') or 0)

local function drop(name)
  local stored = redis.call('HGET', values, name)
  if stored then
    bytes = bytes - #stored
    redis.call('HDEL', values, name)
    redis.call('ZREM', times, name)
  end
end

for _, name in ipairs(args.drops) do
  drop(name)
end
for i, put in ipairs(args.puts) do
  local name, keep_until = put[1], whole(now_ms + put[2])
  local stored = keep_until .. ' ' .. ARGV[FIRST_BYTES + i - 1]
  drop(name)
  redis.call('HSET', values, name, stored)
  redis.call('ZADD', times, keep_until, name)
  bytes = bytes + #stored
end

local removed, evicted = 0, 0
while removed < REMOVED_A_STEP do
  local first = redis.call('ZRANGE', times, '0', '0', 'WITHSCORES')
  local is_over = first[2] and tonumber(first[2]) <= now_ms
  if not first[1] or (not is_over and bytes <= args.limit_bytes) then
    break
  end
  evicted = evicted + (is_over and 0 or 1)
  drop(first[1])
  removed = removed + 1
end

local last = redis.call('ZRANGE', times, '-1', '-1', 'WITHSCORES')[2]
if last then
  redis.call('HSET', values, '.bytes', whole(bytes))
  redis.call('PEXPIREAT', values, last)
  redis.call('PEXPIREAT', times, last)
else
  redis.call('DEL', values, times)
end
return cjson.encode({ now = now_ms, result = { evicted = evicted } })
