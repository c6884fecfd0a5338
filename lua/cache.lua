#!lua
--[[
cache: results that callers keep for each other, in bounded memory: what is soonest to expire goes first.

KEYS, ARGV: see lib/step.lua; KEYS[32]: a hash, name -> 'until value', and '.bytes' of all entries;
  KEYS[33]: a zset, name -> until (ms).
args: puts, each a list of name and ttl_ms; drops (names); limit_bytes.
From ARGV[4] on: the value of each put.
result: for each put whether it is kept: one for which too much would have to go is not.
Safe to repeat. After each step all entries together are within limit_bytes.
]]
-- use step

-- Entries that make room for others in one step: keeps a script call short.
local EVICTED_A_STEP = 512
-- What Redis takes for an entry beside its value: names, the hash, the zset. Measured as 200 for short values.
local ENTRY_BYTES = 200

local values, times = KEYS[FIRST_OWN_KEY], KEYS[FIRST_OWN_KEY + 1]
local bytes = tonumber(redis.call('HGET', values, '.bytes') or 0)

local function size_of(stored)
  return #stored + ENTRY_BYTES
end

local function drop(name)
  local stored = redis.call('HGET', values, name)
  if stored then
    bytes = bytes - size_of(stored)
    redis.call('HDEL', values, name)
    redis.call('ZREM', times, name)
  end
end

local evicted = 0
-- Whether there is room for so many more, after what is soonest to expire has gone.
local function make_room(more)
  while bytes + more > args.limit_bytes and evicted < EVICTED_A_STEP do
    local first = redis.call('ZRANGE', times, '0', '0')[1]
    if not first then
      break
    end
    drop(first)
    evicted = evicted + 1
  end
  return bytes + more <= args.limit_bytes
end

for _, name in ipairs(args.drops) do
  drop(name)
end
local kept = {}
for i, put in ipairs(args.puts) do
  local name, keep_until = put[1], whole(now_ms + put[2])
  local stored = keep_until .. ' ' .. ARGV[FIRST_BYTES + i - 1]
  drop(name)
  kept[i] = make_room(size_of(stored))
  if kept[i] then
    redis.call('HSET', values, name, stored)
    redis.call('ZADD', times, keep_until, name)
    bytes = bytes + size_of(stored)
  end
end

local last = redis.call('ZRANGE', times, '-1', '-1', 'WITHSCORES')[2]
if last then
  redis.call('HSET', values, '.bytes', whole(bytes))
  redis.call('PEXPIREAT', values, last)
  redis.call('PEXPIREAT', times, last)
else
  redis.call('DEL', values, times)
end
return cjson.encode({ now = now_ms, result = { kept = kept } })
