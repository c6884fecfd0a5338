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
local states, lines, changed, counts, seen_cheapest, first_entries
at_start(function()
  open, states, lines, changed = fresh(open), fresh(states), fresh(lines), fresh(changed)
  counts, seen_cheapest, first_entries = cached(counts, key.gates), fresh(seen_cheapest), fresh(first_entries)
end)

-- One queue more, or less, at a gate and of its key.
local function count(path, gate, by)
  local queues = tonumber(read(counts, gate) or 0) + by
  write(counts, gate, queues > 0 and whole(queues))
  local fair_node = tree.fair(path)
  fair_node.queues = fair_node.queues + by
end

-- Whether a queue that stands is the only one of its key.
function standing.is_alone(path)
  return tree.fair(path).queues == 1
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

-- {gate, sequence and cost of its head, tag} of a queue; false for an empty one.
function standing.state(queue)
  return state_of(queue)
end

-- Whether requests wait in a queue.
function standing.has(queue)
  return state_of(queue) ~= false
end

-- For whoever adds or removes it: what was read of its gate is not true any more.
local function key_entry(queue, state)
  first_entries[state.gate] = nil
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
    return known[1], known[2]
  end
  local found = lex_range(key.standing, 'c ' .. gate .. ' ' .. fair_path, '0', '2')
  for i, member in ipairs(found) do
    -- After 'c gate key ', a cost of 8 and a sequence of 14.
    found[i] = fair_path .. '/' .. member:sub(#place + 28)
  end
  seen_cheapest[place] = found
  return found[1], found[2]
end

-- Takes a queue away from its gate.
function standing.remove(queue)
  local state = state_of(queue)
  if not state then
    return
  end
  local path = tree.path(queue)
  local first, next_queue = queue, nil
  if not standing.is_alone(path) then
    first, next_queue = cheapest(state.gate, path.fair)
  end
  local by_age, by_cost = queue_entries(queue, state)
  if first ~= queue then
    redis.call('ZREM', key.standing, by_age, by_cost)
  else
    redis.call('ZREM', key.standing, by_age, by_cost, key_entry(queue, state))
    if next_queue then
      local next_state = state_of(next_queue)
      next_state.tag = tag_of(path, next_state.cost)
      set_state(next_queue, next_state)
      redis.call('ZADD', key.standing, '0', key_entry(next_queue, next_state))
    end
  end
  set_state(queue, false)
  seen_cheapest[state.gate .. ' ' .. path.fair] = nil
  count(path, state.gate, -1)
end

-- Puts a queue at the first closed gate it needs, or at its first one, which is then open.
function standing.put(queue, head)
  local path = tree.path(queue)
  local closed = limiters.first_closed(path)
  local gate = closed and closed.name or path.home
  if not closed then
    open[gate] = true
  end
  local state = {
    gate = gate, sequence = head.sequence, cost = head.cost, tag = tag_of(path, head.cost),
  }
  set_state(queue, state)
  count(path, gate, 1)
  local first = not standing.is_alone(path) and cheapest(gate, path.fair)
  seen_cheapest[gate .. ' ' .. path.fair] = nil
  local by_age, by_cost = queue_entries(queue, state)
  if not first then
    redis.call('ZADD', key.standing, '0', by_age, '0', by_cost, '0', key_entry(queue, state))
    return
  end
  local other = state_of(first)
  if state.cost < other.cost or (state.cost == other.cost and state.sequence < other.sequence) then
    redis.call('ZREM', key.standing, key_entry(first, other))
    redis.call('ZADD', key.standing, '0', by_age, '0', by_cost, '0', key_entry(queue, state))
  else
    redis.call('ZADD', key.standing, '0', by_age, '0', by_cost)
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
  redis.call('ZADD', key.standing, '0', key_entry(queue, state))
  return true
end

-- The queue of a key at a gate that has the oldest head, or nil.
function standing.oldest(gate, fair_path)
  local queue, second = cheapest(gate, fair_path)
  if second then
    local place = 'q ' .. gate .. ' ' .. fair_path
    queue = fair_path .. '/' .. lex_range(key.standing, place, '0', '1')[1]:sub(#place + 17)
  end
  return queue
end

-- The n-th key of a workload at a gate, counted from 0 in the order of tags, or nil.
function standing.entry(gate, workload, n)
  local known = first_entries[gate]
  if n == 0 and known and known[workload] ~= nil then
    return known[workload] or nil
  end
  local place = 'k ' .. gate .. ' ' .. workload
  local member = lex_range(key.standing, place, n == 0 and '0' or n, '1')[1]
  local entry = false
  if member then
    -- A tag of 20, a sequence of 14.
    local at = #place + 2
    local tag, sequence = member:sub(at, at + 19), tonumber(member:sub(at + 21, at + 34))
    local queue = workload .. '/' .. member:sub(at + 36)
    entry = { gate = gate, tag = tag, sequence = sequence, queue = queue, fair = tree.path(queue).fair }
  end
  if n == 0 then
    first_entries[gate] = known or {}
    first_entries[gate][workload] = entry
  end
  return entry or nil
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
    .. whole(request.cost)
end

local function parse_member(member)
  local sequence, id, cost = member:match('^%S+ (%S+) (%S+) (%S+)$')
  return { member = member, sequence = tonumber(sequence), id = id, cost = tonumber(cost) }
end

-- The first `count` (text) requests of a queue: sequence, id and cost.
function standing.heads(queue, count)
  local heads = lex_range(key.waiting, line_of(queue).number, '0', count)
  for i, member in ipairs(heads) do
    heads[i] = parse_member(member)
  end
  return heads
end

-- The one behind a request in its queue, or nil.
function standing.behind(request)
  local number = line_of(request.queue).number
  local member = redis.call('ZRANGEBYLEX', key.waiting, '(' .. member_of(request), '(' .. number .. '!', 'LIMIT', '0', '1')[1]
  return member and parse_member(member)
end

-- 1 for the head of its queue.
function standing.position(request)
  local number = line_of(request.queue).number
  return redis.call('ZLEXCOUNT', key.waiting, '[' .. number .. ' ', '[' .. member_of(request))
end

-- Stands in its queue from now on, at the place that its sequence gives it.
function standing.line_up(request)
  redis.call('ZADD', key.waiting, '0', member_of(request))
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
  line_of(queue).last = deadline and whole(deadline) or '-'
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
