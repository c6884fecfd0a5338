-- Opens every step: the domain's keys by name, the arguments, the clock and the outcome.
--
-- KEYS: the domain's keys in the order of src/admission/keys.ts, one hash tag.
-- ARGV[1]: the clock in ms, '' for the server's own (only tests pass one).
-- ARGV[2]: the arguments of the step, a JSON object. ARGV[3]: bytes that need no parsing.

local key = {
  meta = KEYS[1], -- hash: schema, version (of the policies), sequence, body_bytes, service_ms
  requests = KEYS[2], -- hash: id -> record (JSON) of every request that has not ended
  bodies = KEYS[3], -- hash: id -> what the replica is sent
  waiting = KEYS[4], -- lex zset: 'queue sequence id cost', the FIFO of every queue
  standing = KEYS[5], -- lex zset: where queues stand, see lib/standing.lua
  tree = KEYS[6], -- hash: root, policies and workloads, see lib/tree.lua
  fair = KEYS[7], -- hash: fairness keys, see lib/tree.lua
  queues = KEYS[8], -- hash: queue -> 'gate sequence cost tag seen' of its head
  idle = KEYS[9], -- lex zset: 'parent finish child', whom virtual time may still pass
  limits = KEYS[10], -- hash: limit key -> units
  in_flight = KEYS[11], -- hash: limiter -> units taken; no field at zero
  timers = KEYS[12], -- zset: what is due when; one entry for each request, member, replica
  outbox = KEYS[13], -- zset: 'id attempt' admitted but not yet known to be in BullMQ
  owned = KEYS[14], -- lex zset: 'gateway id', requests that end with their gateway
  members = KEYS[15], -- hash: id -> gateway or worker (JSON) that is alive
  replicas = KEYS[16], -- hash: id -> replica (JSON)
  policies = KEYS[17], -- hash: name -> policy (JSON)
  ended = KEYS[18], -- hash: id -> how a request ended (JSON), kept for a time
  due = KEYS[19], -- set: gates that a bounded step left with free units and queues
  channel = KEYS[20], -- prefix of the channels 'node:<id>'
}

local now_ms
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
else
  now_ms = tonumber(ARGV[1])
end

local args = cjson.decode(ARGV[2])

-- Fixed width keeps numbers in order in a lex zset. Sequences stay below 10^14, tags below 2^53. Not
-- %d: that is a C long, of 32 bits in a WebAssembly server.
local function pad_sequence(n)
  return string.format('%014.0f', n)
end
local function pad_tag(n)
  return string.format('%016.0f', n)
end

-- Members of a lex zset that begin with `prefix` and a space. Names are percent-encoded, so no
-- name holds a space, and '!' is the character that follows it.
local function lex_range(zset, prefix, offset, count)
  return redis.call('ZRANGEBYLEX', zset, '[' .. prefix .. ' ', '(' .. prefix .. '!', 'LIMIT', offset, count)
end

local function split(text, pattern)
  local parts = {}
  for part in text:gmatch(pattern) do
    parts[#parts + 1] = part
  end
  return parts
end

-- What the step caused. Published and returned at its end, so that one reply tells the caller
-- which prompts to hand to BullMQ and when something is due.
local dispatch = {}
local events = {}

local function tell(node, event)
  if node and node ~= '' then
    events[#events + 1] = { node, event }
  end
end
