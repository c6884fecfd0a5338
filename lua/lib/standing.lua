-- Where queues stand. Every queue with requests stands at exactly one gate: a limiter of its own,
-- if possible one without a free unit. Three kinds of entries, in one lex zset:
--   'q gate key sequence queue'         the queues of a fairness key at a gate, oldest head first
--   'c gate key cost sequence queue'    the same, cheapest head first
--   'k gate workload tag sequence key'  the keys of a workload at a gate, smallest tag first. The
--                                       tag is that of the key's cheapest head at this gate: never
--                                       larger than the tag of the head that is to go first.
-- Invariant after each step: no queue stands at a gate with a free unit, unless the gate is in
-- `due`. So nothing has to move when a limit closes or opens: a closed gate is not looked at.
--
-- queues[queue] = 'gate sequence cost tag seen': its head, the tag its key is filed with when this
-- head is the cheapest (-1 before), and the workload's v at the time this request became the head.

local standing = {}
-- Gates that may have a free unit and queues. What a bounded step leaves is looked at in the next.
local open = {}

local function queue_state(queue)
  local stored = redis.call('HGET', key.queues, queue)
  if not stored then
    return nil
  end
  local n = split(stored, '%S+')
  return {
    gate = n[1], sequence = tonumber(n[2]), cost = tonumber(n[3]), tag = tonumber(n[4]), seen = tonumber(n[5]),
  }
end

local function save_state(queue, s)
  redis.call('HSET', key.queues, queue,
    string.format('%s %.0f %.0f %.0f %.0f', s.gate, s.sequence, s.cost, s.tag, s.seen))
end

local function first_queue(kind, gate, fair_path)
  local first = lex_range(key.standing, kind .. ' ' .. gate .. ' ' .. fair_path, 0, 1)[1]
  if not first then
    return nil
  end
  local queue = first:match('(%S+)$')
  return queue, queue_state(queue)
end

-- The queue of a key at a gate that has the oldest head, and its state.
function standing.oldest(gate, fair_path)
  return first_queue('q', gate, fair_path)
end

local function key_entry(gate, path, state)
  return string.format('k %s %s %s %s %s', gate, path.workload, pad_tag(state.tag), pad_sequence(state.sequence), path.fair)
end

-- Takes the key's entry away from a gate, before anything about its queues there changes ...
local function lift(gate, path)
  local queue, state = first_queue('c', gate, path.fair)
  if queue then
    redis.call('ZREM', key.standing, key_entry(gate, path, state))
  end
end

-- ... and files it again by its cheapest head there.
local function file(gate, path)
  local queue, state = first_queue('c', gate, path.fair)
  if not queue then
    return
  end
  local tag = tree.fair(path.fair).start + tag_units(state.cost, 1)
  if tag ~= state.tag then
    state.tag = tag
    save_state(queue, state)
  end
  redis.call('ZADD', key.standing, 0, key_entry(gate, path, state))
end

local function queue_entries(queue, path, state)
  local sequence = pad_sequence(state.sequence)
  return string.format('q %s %s %s %s', state.gate, path.fair, sequence, queue),
    string.format('c %s %s %s %s %s', state.gate, path.fair, pad_sequence(state.cost), sequence, queue)
end

-- Takes a queue away from its gate. Returns what it was.
function standing.remove(queue)
  local state = queue_state(queue)
  if not state then
    return nil
  end
  local path = tree.path(queue)
  lift(state.gate, path)
  redis.call('ZREM', key.standing, queue_entries(queue, path, state))
  redis.call('HDEL', key.queues, queue)
  file(state.gate, path)
  return state
end

-- Puts a queue at the first closed gate it needs, or at its first one, which is then open. A queue
-- that moves with the head it had brings `seen` along.
function standing.put(queue, head, seen)
  local path = tree.path(queue)
  local gate = limiters.first_closed(path.limiters)
  if not gate then
    gate = path.home
    open[gate] = true
  end
  lift(gate, path)
  local state = {
    gate = gate, sequence = head.sequence, cost = head.cost, tag = -1,
    seen = seen or tree.node(path.workload).v,
  }
  save_state(queue, state)
  local by_age, by_cost = queue_entries(queue, path, state)
  redis.call('ZADD', key.standing, 0, by_age, 0, by_cost)
  file(gate, path)
end

-- The head of a queue: sequence, id and cost.
function standing.head(queue)
  local first = lex_range(key.waiting, queue, 0, 1)[1]
  if not first then
    return nil
  end
  local n = split(first, '%S+')
  return { member = first, sequence = tonumber(n[2]), id = n[3], cost = tonumber(n[4]) }
end

-- The key's entry at a gate is out of date when the key was admitted through another gate since:
-- its true tag is then larger. Files it again and says so.
function standing.refile_if_stale(gate, path, tag)
  local _, state = first_queue('c', gate, path.fair)
  if tree.fair(path.fair).start + tag_units(state.cost, 1) == tag then
    return false
  end
  lift(gate, path)
  file(gate, path)
  return true
end

-- The n-th key of a workload at a gate, counted from 0 in the order of tags, or nil.
function standing.entry(gate, workload, n)
  local member = lex_range(key.standing, 'k ' .. gate .. ' ' .. workload, n, 1)[1]
  if not member then
    return nil
  end
  local _, _, tag, sequence, fair_path = member:match('^k (%S+) (%S+) (%S+) (%S+) (%S*)$')
  return { gate = gate, tag = tonumber(tag), sequence = tonumber(sequence), fair = fair_path }
end
