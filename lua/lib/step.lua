-- Opens every step: the domain's keys by name, the arguments, the clock, and hashes that are read
-- and written once.
--
-- KEYS: the domain's keys in the order of src/admission/keys.ts, one hash tag.
-- ARGV[1]: the clock in ms, '' for the server's own (only tests pass one).
-- ARGV[2]: the arguments of the step, a JSON object. ARGV[3..]: bytes that need no parsing.

local key = {
  meta = KEYS[1], -- hash: schema, version (of the policies), sequence, body_bytes, service_ms ...
  requests = KEYS[2], -- hash: id -> record of every request that waits, see lib/requests.lua
  held = KEYS[3], -- hash: id -> record of every request that holds slots
  bodies = KEYS[4], -- hash: id -> what the replica is sent
  waiting = KEYS[5], -- lex zset: 'queue sequence id cost', the FIFO of every queue
  standing = KEYS[6], -- lex zset: where queues stand, see lib/standing.lua
  queues = KEYS[7], -- hash: queue -> 'gate sequence cost tag seen' of its head
  tree = KEYS[8], -- hash: root, policies and workloads, see lib/tree.lua
  fair = KEYS[9], -- hash: fairness keys, see lib/tree.lua
  idle = KEYS[10], -- lex zset: 'parent tag child', whom virtual time may still pass
  limits = KEYS[11], -- hash: limit key -> units, or 'bucket ...', see lib/limiters.lua
  in_flight = KEYS[12], -- hash: limiter -> units taken; no field at zero
  buckets = KEYS[13], -- hash: limiter -> level of a bucket that is not full, see lib/buckets.lua
  full_at = KEYS[14], -- zset: limiter -> when its bucket is full, and forgotten
  lengths = KEYS[15], -- hash: control point -> requests that wait
  timers = KEYS[16], -- zset: what is due when; one entry for each request, member, replica, held bucket
  outbox = KEYS[17], -- zset: 'id attempt' admitted but not yet known to be in BullMQ
  members = KEYS[18], -- hash: id -> gateway or worker (JSON) that is alive
  replicas = KEYS[19], -- hash: id -> replica (JSON)
  policies = KEYS[20], -- hash: name -> policy (JSON)
  ended = KEYS[21], -- hash: id -> how a request ended (JSON); two generations, see lib/ended.lua
  ended_before = KEYS[22],
  jobs_ended = KEYS[23], -- the same for jobs, which are kept for longer
  jobs_ended_before = KEYS[24],
  due = KEYS[25], -- set: gates that a bounded step left with free units and queues
  channel = KEYS[26], -- prefix of the channels 'node:<id>'
}
local FIRST_OWN_KEY = 27

local now_ms
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
else
  now_ms = tonumber(ARGV[1])
end

local now_text = string.format('%.0f', now_ms)

local args = cjson.decode(ARGV[2])

-- A hash as the step sees it: a field is read once, and what changed is written by flush, so that
-- requests that share a step share its commands.
local function cached(name)
  return { name = name, values = {}, changed = {} }
end

-- The field's value, or false.
local function read(hash, field)
  local value = hash.values[field]
  if value == nil then
    value = redis.call('HGET', hash.name, field)
    hash.values[field] = value
  end
  return value
end

-- Values of many fields, in their order, false for none.
local function read_many(name, fields)
  return #fields > 0 and redis.call('HMGET', name, unpack(fields)) or {}
end

-- Reads many fields at once, for the `read`s that follow.
local function fetch(hash, fields)
  local values = read_many(hash.name, fields)
  for i, field in ipairs(fields) do
    if hash.values[field] == nil then
      hash.values[field] = values[i]
    end
  end
end

-- `value` false removes the field.
local function write(hash, field, value)
  hash.values[field] = value
  hash.changed[field] = true
end

-- Redis takes as many arguments as Lua can unpack: a few thousand.
local ARGUMENTS = 1000
local function call_with(command, name, list)
  for from = 1, #list, ARGUMENTS do
    redis.call(command, name, unpack(list, from, math.min(from + ARGUMENTS - 1, #list)))
  end
end

-- Fields of a hash that are written once: `sets` is field, value, field, value ...
local function flush_lists(name, sets, removals)
  call_with('HSET', name, sets)
  call_with('HDEL', name, removals)
end

local function flush(hash)
  local sets, removals = {}, {}
  for field in pairs(hash.changed) do
    local value = hash.values[field]
    if value then
      sets[#sets + 1] = field
      sets[#sets + 1] = value
    else
      removals[#removals + 1] = field
    end
  end
  flush_lists(hash.name, sets, removals)
  hash.changed = {}
end

-- A zset by score, written by flush_scores.
local function scored(name)
  return { name = name, scores = {} }
end

-- `score` false removes the member.
local function set_score(zset, member, score)
  zset.scores[member] = score
end

local function flush_scores(zset)
  local sets, removals = {}, {}
  for member, score in pairs(zset.scores) do
    if score then
      sets[#sets + 1] = score
      sets[#sets + 1] = member
    else
      removals[#removals + 1] = member
    end
  end
  call_with('ZADD', zset.name, sets)
  call_with('ZREM', zset.name, removals)
  zset.scores = {}
end

local meta = cached(key.meta)
local timers = scored(key.timers)
local outbox = scored(key.outbox)

-- Fixed width keeps numbers in order in a lex zset. Sequences stay below 10^14. Not %d: that is a C
-- long, of 32 bits in a WebAssembly server.
local function pad_sequence(n)
  return string.format('%014.0f', n)
end

-- Members of a lex zset that begin with `prefix` and a space. Names are percent-encoded, so no
-- name holds a space, and '!' is the character that follows it.
local function lex_range(zset, prefix, offset, count)
  return redis.call('ZRANGEBYLEX', zset, '[' .. prefix .. ' ', '(' .. prefix .. '!', 'LIMIT', offset, count)
end

-- What the step caused. Published and returned at its end, so that one reply tells the caller
-- which prompts to hand to BullMQ and when something is due.
local dispatch = {}
local events = {}

local function tell(node, event)
  if node then
    local list = events[node] or {}
    list[#list + 1] = event
    events[node] = list
  end
end
