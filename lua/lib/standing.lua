-- Where queues stand. Every queue with requests stands at exactly one gate: a limiter of its own,
-- if possible one that is closed. Three kinds of entries, in one lex zset:
--   'q gate key sequence rest'           the queues of a fairness key at a gate, oldest head first
--   'c gate key cost sequence rest'      the same, cheapest head first
--   'k gate workload tag sequence rest'  the keys of a workload at a gate, smallest tag first, each by
--                                        its queue with the cheapest head there: that tag is never
--                                        larger than the one of the head that is to go first
-- `rest` is what follows 'key/' or 'workload/' in the queue's name.
-- Invariant after each step: no queue stands at an open gate, unless the gate is in `due`. So nothing
-- has to move when a limit closes or opens: a closed gate is not looked at.
--
-- queues[queue] = 'gate sequence cost tag line last': its head; the tag its key is filed with when this
-- head is the cheapest; the number by which the index `waiting` knows the queue as long as it is not
-- empty, and the deadline of the last in it, '-' when that one has left.

local standing = {}
-- Gates that may have a free unit and queues. What a bounded step leaves is looked at in the next.
local open
-- private
local states, lines, changed, counts, seen_cheapest
at_start(function()
  open, states, lines, changed = fresh(open), fresh(states), fresh(lines), fresh(changed)
  counts, seen_cheapest = cached(counts, key.gates), fresh(seen_cheapest)
end)

local function count(gate, by)
  local queues = tonumber(read(counts, gate) or 0) + by
  write(counts, gate, queues > 0 and queues)
end

-- Whether no queue stands at a gate.
function standing.is_empty(gate)
  return not read(counts, gate)
end

local function parse(queue, stored)
  local state = false
  if stored then
    local gate, sequence, cost, tag, number, last = stored:match('^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
    state = { gate = gate, sequence = tonumber(sequence), cost = tonumber(cost), tag = tag }
    lines[queue] = { number = number, last = last }
  end
  states[queue] = state
  return state
end

local function state_of(queue)
  local state = states[queue]
  if state == nil then
    state = parse(queue, redis.call('HGET', key.queues, queue))
  end
  return state
end

local function set_state(queue, state)
  states[queue] = state
  changed[queue] = true
end

-- Reads many at once.
function standing.fetch(queues)
  local stored = read_many(key.queues, queues)
  for i, queue in ipairs(queues) do
    parse(queue, stored[i])
  end
end

function standing.fetch_gates(gates)
  fetch(counts, gates)
end

-- Whether requests wait in a queue.
function standing.has(queue)
  return state_of(queue) ~= false
end

-- The sequence of the first of a queue; nil when it is empty.
function standing.sequence(queue)
  local state = state_of(queue)
  return state and state.sequence or nil
end

-- The gate at which a queue with requests stands.
function standing.gate(queue)
  return state_of(queue).gate
end

local function key_entry(queue, state)
  local path = tree.path(queue)
  return 'k ' .. state.gate .. ' ' .. path.workload .. ' ' .. state.tag .. ' '
    .. pad_sequence(state.sequence) .. ' ' .. path.in_workload
end

local function queue_entries(queue, state)
  local path, sequence = tree.path(queue), pad_sequence(state.sequence)
  local place = state.gate .. ' ' .. path.fair .. ' '
  local rest = sequence .. ' ' .. path.in_key
  return 'q ' .. place .. rest, 'c ' .. place .. string.format('%08d', state.cost) .. ' ' .. rest
end

-- The tag of a key whose head costs so much, as text.
local function tag_of(path, cost)
  return tag_text(tree.node(path.workload), tree.fair(path).start + tag_units(cost, 1))
end

-- The queues of a key at a gate with the cheapest heads: none, one, or two of them.
local function cheapest(gate, fair_path)
  local place = gate .. ' ' .. fair_path
  local known = seen_cheapest[place]
  if known then
    return known
  end
  local found = lex_range(key.standing, 'c ' .. gate .. ' ' .. fair_path, 0, 2)
  for i, member in ipairs(found) do
    -- After 'c gate key ', a cost of 8 and a sequence of 14.
    found[i] = fair_path .. '/' .. member:sub(#place + 28)
  end
  seen_cheapest[place] = found
  return found
end

-- Takes a queue away from its gate. Returns what it was, and the gate if its key has no other there.
function standing.remove(queue)
  local state = state_of(queue)
  if not state then
    return nil
  end
  local path = tree.path(queue)
  local first = cheapest(state.gate, path.fair)
  local by_age, by_cost = queue_entries(queue, state)
  if first[1] ~= queue then
    redis.call('ZREM', key.standing, by_age, by_cost)
  else
    redis.call('ZREM', key.standing, by_age, by_cost, key_entry(queue, state))
    local next_queue = first[2]
    if next_queue then
      local next_state = state_of(next_queue)
      next_state.tag = tag_of(path, next_state.cost)
      set_state(next_queue, next_state)
      redis.call('ZADD', key.standing, 0, key_entry(next_queue, next_state))
    end
  end
  set_state(queue, false)
  seen_cheapest[state.gate .. ' ' .. path.fair] = nil
  count(state.gate, -1)
  return state, not first[2] and state.gate
end

-- Puts a queue at the first closed gate it needs, or at its first one, which is then open. At the
-- gate `alone_at` its key has no other.
function standing.put(queue, head, alone_at)
  local path = tree.path(queue)
  local closed = limiters.first_closed(path)
  local gate = closed and closed.name or path.home
  if not closed then
    open[gate] = true
  end
  local state = {
    gate = gate, sequence = tonumber(head.sequence), cost = head.cost, tag = tag_of(path, head.cost),
  }
  set_state(queue, state)
  local first = gate ~= alone_at and cheapest(gate, path.fair)[1]
  seen_cheapest[gate .. ' ' .. path.fair] = nil
  count(gate, 1)
  local by_age, by_cost = queue_entries(queue, state)
  if not first then
    redis.call('ZADD', key.standing, 0, by_age, 0, by_cost, 0, key_entry(queue, state))
    return
  end
  local other = state_of(first)
  if state.cost < other.cost or (state.cost == other.cost and state.sequence < other.sequence) then
    redis.call('ZREM', key.standing, key_entry(first, other))
    redis.call('ZADD', key.standing, 0, by_age, 0, by_cost, 0, key_entry(queue, state))
  else
    redis.call('ZADD', key.standing, 0, by_age, 0, by_cost)
    standing.refile(first)
  end
end

-- The entry of a key is out of date when the key was admitted through another gate since: its true
-- tag is then larger. Files it again and says so.
function standing.refile(queue)
  local state = state_of(queue)
  local tag = tag_of(tree.path(queue), state.cost)
  if tag == state.tag then
    return false
  end
  redis.call('ZREM', key.standing, key_entry(queue, state))
  state.tag = tag
  set_state(queue, state)
  redis.call('ZADD', key.standing, 0, key_entry(queue, state))
  return true
end

-- The queue of a key at a gate that has the oldest head, and its state.
function standing.oldest(gate, fair_path)
  local first = cheapest(gate, fair_path)
  local queue = first[1]
  if first[2] then
    local place = 'q ' .. gate .. ' ' .. fair_path
    queue = fair_path .. '/' .. lex_range(key.standing, place, 0, 1)[1]:sub(#place + 17)
  end
  return queue, queue and state_of(queue)
end

-- The n-th key of a workload at a gate, counted from 0 in the order of tags, or nil.
function standing.entry(gate, workload, n)
  local place = 'k ' .. gate .. ' ' .. workload
  local member = lex_range(key.standing, place, n, 1)[1]
  if not member then
    return nil
  end
  -- A tag of 20, a sequence of 14.
  local at = #place + 2
  local tag, sequence = member:sub(at, at + 19), tonumber(member:sub(at + 21, at + 34))
  local queue = workload .. '/' .. member:sub(at + 36)
  return { gate = gate, tag = tag, sequence = sequence, queue = queue, fair = tree.path(queue).fair }
end

-- A queue gets its number when its first request joins. It is taken like a request's sequence, so that
-- none was ever given before.
local function line_of(queue)
  state_of(queue)
  local line = lines[queue]
  if not line then
    line = { number = next_sequence(), last = '-' }
    lines[queue] = line
  end
  return line
end

local function member_of(request)
  return line_of(request.queue).number .. ' ' .. pad_sequence(request.sequence) .. ' ' .. request.id .. ' '
    .. request.cost
end

local function parse_member(member)
  local sequence, id, cost = member:match('^%S+ (%S+) (%S+) (%S+)$')
  return { member = member, sequence = tonumber(sequence), id = id, cost = tonumber(cost) }
end

-- The first `count` requests of a queue: sequence, id and cost.
function standing.heads(queue, count)
  local heads = lex_range(key.waiting, line_of(queue).number, 0, count)
  for i, member in ipairs(heads) do
    heads[i] = parse_member(member)
  end
  return heads
end

-- The one behind a request in its queue, or nil.
function standing.behind(request)
  local number = line_of(request.queue).number
  local member = redis.call('ZRANGEBYLEX', key.waiting, '(' .. member_of(request), '(' .. number .. '!', 'LIMIT', 0, 1)[1]
  return member and parse_member(member)
end

-- 1 for the head of its queue.
function standing.position(request)
  local number = line_of(request.queue).number
  return redis.call('ZLEXCOUNT', key.waiting, '[' .. number .. ' ', '[' .. member_of(request))
end

-- Stands in its queue from now on, at the place that its sequence gives it.
function standing.line_up(request)
  redis.call('ZADD', key.waiting, 0, member_of(request))
end

function standing.line_off(request)
  redis.call('ZREM', key.waiting, member_of(request))
end

-- Deadline of the last of a queue; larger than any when it is not known, or nobody is there.
function standing.last_deadline(queue)
  return tonumber(line_of(queue).last) or math.huge
end

-- `deadline` nil: not known.
function standing.set_last_deadline(queue, deadline)
  line_of(queue).last = deadline and string.format('%.0f', deadline) or '-'
  changed[queue] = true
end

function standing.save()
  if not next(changed) then
    return
  end
  local sets, removals = {}, {}
  for queue in pairs(changed) do
    local state = states[queue]
    if state then
      sets[#sets + 1] = queue
      local line = lines[queue]
      sets[#sets + 1] = state.gate .. ' ' .. whole(state.sequence) .. ' ' .. state.cost .. ' ' .. state.tag
        .. ' ' .. line.number .. ' ' .. line.last
    else
      removals[#removals + 1] = queue
    end
  end
  changed = {}
  flush_lists(key.queues, sets, removals)
  flush(counts)
end
