-- Opens every step: the domain's keys by name, the arguments, the clock, and hashes that are read
-- and written once.
--
-- KEYS: the domain's keys in the order of src/admission/keys.ts, one hash tag.
-- ARGV[1]: the clock in ms, '' for the server's own (only tests pass one).
-- ARGV[2]: settings, a JSON object: begin_ms, offer_again_ms, keep_ms, keep_job_ms, max_attempts,
-- keep_dead_ms, dead_letters, dead_letter_bytes. Read anew only when they are others than those of the
-- last call.
-- ARGV[3]: the arguments of the step, a JSON object. ARGV[4..]: bytes that need no parsing.

local KEY_NAMES = {
  'meta', -- hash: schema, version (of the policies), sequence, body_bytes, service_ms, impaired ...
  'requests', -- hash: id -> record of every request that waits, see lib/requests.lua
  'held', -- hash: id -> record of every request that holds slots
  'bodies', -- hash: id -> what the replica is sent
  'waiting', -- lex zset: 'line sequence id cost', the FIFO of every queue
  'standing', -- lex zset: where queues stand, see lib/standing.lua
  'queues', -- hash: queue -> 'gate sequence cost tag line last', see lib/standing.lua
  'gates', -- hash: gate -> queues that stand there; no field at zero
  'tree', -- hash: root, policies and workloads, see lib/tree.lua
  'fair', -- hash: fairness keys, see lib/tree.lua
  'idle', -- lex zset: 'parent tag child', whom virtual time may still pass
  'limits', -- hash: limit key -> units, or 'bucket ...', see lib/limiters.lua
  'in_flight', -- hash: limiter -> units taken; no field at zero
  'buckets', -- hash: limiter -> level of a bucket that is not full, see lib/buckets.lua
  'full_at', -- zset: limiter -> when its bucket is full, and forgotten
  'lengths', -- hash: control point -> requests that wait
  'timers', -- zset: what is due when; at most one entry for each request, member, replica, probe, held bucket
  'outbox', -- zset: 'id attempt' admitted but not yet known to be in BullMQ
  'members', -- hash: id -> gateway or worker (JSON) that is alive
  'replicas', -- hash: id -> replica (JSON), see lib/capacity.lua
  'probes', -- hash: id -> readiness probe of a replica (JSON)
  'dead', -- hash: id -> dead letter (JSON), see lib/dead.lua
  'dead_bodies', -- hash: id -> what its replicas were sent
  'dead_at', -- zset: id -> when it died
  'policies', -- hash: name -> policy (JSON)
  'ended', -- hash: id -> how a request ended, and its record; two generations, see lib/ended.lua
  'ended_before',
  'jobs_ended', -- the same for jobs, which are kept for longer
  'jobs_ended_before',
  'due', -- set: gates that a bounded step left with free units and queues
  'channel', -- prefix of the channels 'node:<id>' and 'stream:<id>'
}
local FIRST_OWN_KEY = #KEY_NAMES + 1
-- Of meta, what most steps need.
local META_FIELDS = { 'sequence', 'version', 'rekeying', 'service_ms', 'body_bytes', 'impaired' }

-- A library is loaded once and called often. What it knows of one call is set up at the beginning of
-- each, by what it gives to at_start. From call to call it keeps only what the same words always mean:
-- names of keys, settings, paths of queues.
local starts = {}
local function at_start(set_up)
  starts[#starts + 1] = set_up
end

-- An empty table: the one of the last call where that left it unused, since most do.
local function fresh(last)
  return last and not next(last) and last or {}
end

local FIRST_BYTES = 4

local KEYS, ARGV, key, now_ms, now_text, args, settings, settings_text

local function start(keys, argv)
  KEYS, ARGV = keys, argv
  -- Mostly the domain of the last call: its names are the only thing that stays.
  if not key or key.meta ~= keys[1] then
    key = {}
    for i, name in ipairs(KEY_NAMES) do
      key[name] = keys[i]
    end
  end
  if argv[1] == '' then
    local time = redis.call('TIME')
    now_text = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
  else
    now_text = argv[1]
  end
  now_ms = tonumber(now_text)
  if argv[2] ~= settings_text then
    settings, settings_text = cjson.decode(argv[2]), argv[2]
  end
  args = cjson.decode(argv[3])
  for _, set_up in ipairs(starts) do
    set_up()
  end
end

-- Whole numbers as text. %d is fast, but a C long, of 32 bits in a WebAssembly server: hence two parts.
-- Other ways, also a number that is given to redis.call, take several times as long: text is given.
local function whole(n)
  if n < 0 then
    return string.format('%.0f', n)
  elseif n < 1e9 then
    return string.format('%d', n)
  end
  local low = n % 1e9
  return string.format('%d%09d', (n - low) / 1e9, low)
end

-- A hash as the step sees it: a field is read once, and what changed is written by flush, so that
-- requests that share a step share its commands. `last`: the one of the last call.
local function cached(last, name)
  if last and not next(last.values) then
    last.name = name
    return last
  end
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
local NOTHING = {}
local function read_many(name, fields)
  return fields[1] and redis.call('HMGET', name, unpack(fields)) or NOTHING
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
  if not next(hash.changed) then
    return
  end
  local sets, removals = {}, NOTHING
  for field in pairs(hash.changed) do
    local value = hash.values[field]
    if value then
      sets[#sets + 1] = field
      sets[#sets + 1] = value
    else
      removals = removals == NOTHING and {} or removals
      removals[#removals + 1] = field
    end
  end
  flush_lists(hash.name, sets, removals)
  hash.changed = {}
end

-- A zset by score, written by flush_scores.
local function scored(last, name)
  if last and not next(last.scores) then
    last.name = name
    return last
  end
  return { name = name, scores = {} }
end

-- `score` false removes the member.
local function set_score(zset, member, score)
  zset.scores[member] = score
end

local function flush_scores(zset)
  if not next(zset.scores) then
    return
  end
  local sets, removals = {}, {}
  for member, score in pairs(zset.scores) do
    if score then
      sets[#sets + 1] = whole(score)
      sets[#sets + 1] = member
    else
      removals[#removals + 1] = member
    end
  end
  call_with('ZADD', zset.name, sets)
  call_with('ZREM', zset.name, removals)
  zset.scores = {}
end

local meta, timers, outbox

-- Fixed width keeps numbers in order in a lex zset. Sequences stay below 10^14.
local function pad_sequence(n)
  local low = n % 1e8
  return string.format('%06d%08d', (n - low) / 1e8, low)
end

-- While requests are keyed anew after a change of policies, nobody is admitted: whoever does not yet
-- count against a new limit would be let past it.
local function is_frozen()
  return read(meta, 'rekeying') ~= false
end

-- A number that is larger than those given before.
local function next_sequence()
  local number = tonumber(read(meta, 'sequence') or 0) + 1
  write(meta, 'sequence', whole(number))
  return number
end

-- Members of a lex zset that begin with `prefix` and a space; `offset` and `count` as text. Names are
-- percent-encoded, so no name holds a space, and '!' is the character that follows it.
local function lex_range(zset, prefix, offset, count)
  return redis.call('ZRANGEBYLEX', zset, '[' .. prefix .. ' ', '(' .. prefix .. '!', 'LIMIT', offset, count)
end

-- What the step caused. Published and returned at its end, so that one reply tells the caller
-- which prompts to hand to BullMQ and when something is due.
local dispatch, events

local function publish(channel, event)
  local list = events[channel] or {}
  list[#list + 1] = event
  events[channel] = list
end

-- A gateway or a worker hears of its requests on a channel of its own.
local function tell(node, event)
  if node then
    publish('node:' .. node, event)
  end
end

-- Who follows a request: its gateway; of a job, which has none, whoever listens to its stream.
local function tell_followers(request, event)
  if request.owner then
    tell(request.owner, event)
  elseif request.job then
    publish('stream:' .. request.id, event)
  end
end

at_start(function()
  meta, timers, outbox = cached(meta, key.meta), scored(timers, key.timers), scored(outbox, key.outbox)
  fetch(meta, META_FIELDS)
  dispatch, events = fresh(dispatch), fresh(events)
end)
