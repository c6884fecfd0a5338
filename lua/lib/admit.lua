-- The one loop that admits. It runs at the end of every step, over the gates that the step opened,
-- until no eligible request waits or its bound is reached; what is left is due at once in the next
-- step. Nothing else takes a slot.

-- Queues moved or requests admitted by one step: keeps a script call short.
local MOVES_A_STEP = 128
local moves = 0
-- Keys looked at in one search for the first of a workload; more than one only where keys have
-- several queues, whose cheapest head is not their oldest.
local KEYS_A_SEARCH = 64

-- Index reads of all searches in the step; so many count as one move.
local reads = 0
local READS_A_MOVE = 32
-- Gates that are looked at together. A step opens a few; a new limit may open thousands.
local GATES_AT_ONCE = 16

local function gates_with_units()
  local names = {}
  for name in pairs(open) do
    if name == '-' or limiters.free(name) > 0 then
      names[#names + 1] = name
    else
      open[name] = nil
    end
  end
  table.sort(names)
  return names
end

-- The oldest request of a key that may go, at the open gates. A queue found blocked moves to the
-- gate that blocks it; then the search has to begin anew, and the second result is true.
local function head_of_key(fair_path, gates)
  local head
  for _, gate in ipairs(gates) do
    local queue, state = standing.oldest(gate, fair_path)
    if queue then
      local path = tree.path(queue)
      if limiters.first_closed(path.limiters) then
        standing.put(queue, state, standing.remove(queue).seen)
        return nil, true
      end
      if not head or state.sequence < head.sequence then
        head = { queue = queue, path = path, cost = state.cost, sequence = state.sequence, seen = state.seen }
      end
    end
  end
  return head, false
end

local function before(a, b)
  return a.tag < b.tag or (a.tag == b.tag and a.sequence < b.sequence)
end

-- The eligible request of a workload that is first in the workload's order, or nil. Entries are lower
-- bounds of their keys' tags: keys are looked at in that order until the bound passes the best tag.
local function first_of(workload, gates)
  local best, looked_at, passed, count = nil, {}, {}, 0
  while moves < MOVES_A_STEP do
    local entry
    for _, gate in ipairs(gates) do
      local at_gate = standing.entry(gate, workload, passed[gate] or 0)
      reads = reads + 1
      if at_gate and (not entry or before(at_gate, entry)) then
        entry = at_gate
      end
    end
    if not entry or count == KEYS_A_SEARCH or (best and before(best, entry)) then
      return best
    end
    local head, moved
    if not looked_at[entry.fair] then
      head, moved = head_of_key(entry.fair, gates)
    end
    if moved or (head and standing.refile_if_stale(entry.gate, head.path, entry.tag)) then
      moves = moves + 1
      best, looked_at, passed, count = nil, {}, {}, 0
    else
      looked_at[entry.fair] = true
      passed[entry.gate] = (passed[entry.gate] or 0) + 1
      count = count + 1
      if head then
        head.tag = tree.fair(entry.fair).start + tag_units(head.cost, 1)
        if not best or before(head, best) then
          best = head
        end
      end
    end
  end
  return nil
end

-- The better of two children of one node: the smaller finish tag, then the older head.
local function better(a, b)
  if not b then
    return a
  end
  if a.tag ~= b.tag then
    return a.tag < b.tag and a or b
  end
  return a.first.sequence < b.first.sequence and a or b
end

-- A child that comes back after v passed it while it could not run is raised to v.
local function tag_of(child, parent, weight, cost)
  local length = tag_units(cost, weight)
  if child.parked then
    child.parked = false
    child.start = math.max(child.start, parent.v - length)
  end
  return child.start + length
end

-- Walks the inner nodes, which are few. Returns the request to admit and the set of inner nodes
-- that have an eligible one.
local function choose(gates)
  local nodes = tree.inner()
  local best_of, eligible = {}, {}
  for path, node in pairs(nodes) do
    local policy_path = path:match('^([^/]+)/')
    if policy_path and node.waiting > 0 then
      local first = first_of(path, gates)
      if first then
        eligible[path] = true
        eligible[policy_path] = true
        local tag = tag_of(node, tree.node(policy_path), first.path.weight, first.cost)
        best_of[policy_path] = better({ tag = tag, first = first }, best_of[policy_path])
      end
    end
  end
  local chosen
  for policy_path, best in pairs(best_of) do
    local tag = tag_of(tree.node(policy_path), tree.node(ROOT), 1, best.first.cost)
    chosen = better({ tag = tag, first = best.first }, chosen)
  end
  return chosen and chosen.first, eligible
end

-- Siblings that could not run while v moved past them are parked.
local function park_passed(v_before, eligible)
  for path, node in pairs(tree.inner()) do
    if path ~= ROOT and node.waiting > 0 and not eligible[path] then
      local parent = tree.node(path:match('^([^/]+)/') or ROOT)
      if parent.v > (v_before[parent.path] or parent.v) then
        node.parked = true
      end
    end
  end
end

local function take(first)
  local queue, path = first.queue, first.path
  local head = standing.head(queue)
  standing.remove(queue)
  redis.call('ZREM', key.waiting, head.member)
  tree.charge(path, head.cost, first.seen)
  local request = requests.load(head.id)
  for _, name in ipairs(path.limiters) do
    limiters.take(name)
  end
  local next_head = standing.head(queue)
  if next_head then
    standing.put(queue, next_head)
  end
  requests.admitted(request)
end

-- Opens a few of the gates that earlier steps left. 'after <gate> <limit key>' stands for all gates of
-- a limit behind that one.
local function open_due()
  for _, entry in ipairs(redis.call('SPOP', key.due, GATES_AT_ONCE)) do
    local gate, limit_key = entry:match('^after (%S+) (%S+)$')
    if not gate then
      open[entry] = true
    else
      for _ = 1, GATES_AT_ONCE do
        local found = redis.call('ZRANGEBYLEX', key.standing, '(q ' .. gate .. '!',
          '(q ' .. limit_key .. '>', 'LIMIT', 0, 1)[1]
        gate = found and found:match('^q (%S+)')
        if not gate then
          break
        end
        redis.call('SADD', key.due, gate)
      end
      if gate then
        redis.call('SADD', key.due, 'after ' .. gate .. ' ' .. limit_key)
      end
      moves = moves + 1
    end
  end
end

local function admit()
  while moves + reads / READS_A_MOVE < MOVES_A_STEP do
    local gates = gates_with_units()
    if #gates == 0 then
      if redis.call('EXISTS', key.due) == 0 then
        return
      end
      open_due()
    else
      local first, eligible = choose(gates)
      -- A search that ran into the bound has not seen everyone: its choice does not count.
      if first and moves < MOVES_A_STEP then
        local policy = first.path.policy
        local v_before = { [ROOT] = tree.node(ROOT).v, [policy] = tree.node(policy).v }
        take(first)
        park_passed(v_before, eligible)
        moves = moves + 1
      elseif moves < MOVES_A_STEP then
        -- Nobody at these gates may go.
        open = {}
      end
    end
  end
  for gate in pairs(open) do
    redis.call('SADD', key.due, gate)
  end
end
