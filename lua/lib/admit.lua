-- The one loop that admits. It runs in every step, over the gates that the step opened, until no
-- eligible request waits or its bound is reached; what is left is due at once in the next step.
-- Nothing else takes a slot.

local admit, arrive, may_pass, has_due, add_due
-- private

-- Queues moved or requests admitted by one step: keeps a script call short.
local MOVES_A_STEP = 20
local moves
-- Keys looked at in one search for the first of a workload; more than one only where keys have
-- several queues, whose cheapest head is not their oldest.
local KEYS_A_SEARCH = 64

-- Index reads of all searches in the step; so many count as one move.
local reads
local READS_A_MOVE = 16
-- Gates that are looked at together. A step opens a few; a new limit may open thousands.
local GATES_AT_ONCE = 16

local some_due
at_start(function()
  moves, reads, some_due = 0, 0, nil
end)

function has_due()
  if some_due == nil then
    some_due = redis.call('EXISTS', key.due) == 1
  end
  return some_due
end

function add_due(entry)
  redis.call('SADD', key.due, entry)
  some_due = true
end

local function open_gates()
  local names = {}
  for name in pairs(open) do
    if not standing.is_empty(name) and (name == '-' or limiters.is_open(name)) then
      names[#names + 1] = name
    else
      open[name] = nil
    end
  end
  table.sort(names)
  return names
end

-- The head of a queue, if it may go and is older than `head`. A queue found blocked moves to the gate
-- that blocks it; then the search has to begin anew, and the second result is true.
local function older_head(queue, head)
  local state, path = standing.state(queue), tree.path(queue)
  if limiters.first_closed(path) then
    standing.remove(queue)
    standing.put(queue, state)
    return nil, true
  end
  if head and head.sequence < state.sequence then
    return head, false
  end
  return { queue = queue, path = path, cost = state.cost, sequence = state.sequence }, false
end

-- The oldest request of an entry's key that may go, at the open gates.
local function head_of_key(entry, gates)
  if standing.is_alone(tree.path(entry.queue)) then
    return older_head(entry.queue, nil)
  end
  local head, moved
  for _, gate in ipairs(gates) do
    local queue = standing.oldest(gate, entry.fair)
    if queue then
      head, moved = older_head(queue, head)
      if moved then
        return nil, true
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
  local best, looked_at, passed_by, count = nil, {}, {}, 0
  while moves < MOVES_A_STEP do
    local entry
    for _, gate in ipairs(gates) do
      local at_gate = standing.entry(gate, workload.path, passed_by[gate] or 0)
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
      head, moved = head_of_key(entry, gates)
    end
    if moved or (head and standing.refile(entry.queue)) then
      moves = moves + 1
      best, looked_at, passed_by, count = nil, {}, {}, 0
    else
      looked_at[entry.fair] = true
      passed_by[entry.gate] = (passed_by[entry.gate] or 0) + 1
      count = count + 1
      if head then
        head.tag = tag_text(workload, tree.fair(head.path).start + tag_units(head.cost, 1))
        if not best or before(head, best) then
          best = head
        end
        -- What follows is behind this entry.
        if not before(entry, best) then
          return best
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

local function tag_of_child(child, parent, weight, cost)
  unpark(parent, child)
  return child.start + tag_units(cost, weight)
end

-- Walks the inner nodes, which are few. Returns the request to admit and the set of inner nodes
-- that have an eligible one.
local function choose(gates)
  local best_of, eligible = {}, {}
  for path, node in pairs(tree.inner()) do
    if node.waiting > 0 and node.parent and node.parent ~= ROOT then
      local first = first_of(node, gates)
      if first then
        local policy = tree.node(node.parent)
        eligible[path] = true
        eligible[node.parent] = true
        local tag = tag_of_child(node, policy, first.path.weight, first.cost)
        best_of[node.parent] = better({ tag = tag, first = first }, best_of[node.parent])
      end
    end
  end
  local chosen
  for policy_path, best in pairs(best_of) do
    local tag = tag_of_child(tree.node(policy_path), tree.node(ROOT), 1, best.first.cost)
    chosen = better({ tag = tag, first = best.first }, chosen)
  end
  return chosen and chosen.first, eligible
end

-- Runs `charge(path, cost)` and parks siblings that could not run while v moved: `eligible` are the
-- others. `parked` is v before that, as it reads after a turn that v may have begun.
local function advance_and_park(charge, path, cost, eligible)
  local root, policy = tree.node(ROOT), tree.node(path.policy)
  local root_v, root_turns, policy_v, policy_turns = root.v, root.turns, policy.v, policy.turns
  charge(path, cost)
  if root.waiting == 0 then
    return
  end
  root_v = root_v - (root.turns - root_turns) * SPAN
  policy_v = policy_v - (policy.turns - policy_turns) * SPAN
  for other, node in pairs(tree.inner()) do
    if node.waiting > 0 and not eligible[other] then
      if root.v > root_v and node.parent == ROOT then
        node.parked = node.parked or root_v
      elseif policy.v > policy_v and node.parent == path.policy then
        node.parked = node.parked or policy_v
      end
    end
  end
end

local function take(first, eligible)
  local queue = first.queue
  local heads = standing.heads(queue, '2')
  standing.remove(queue)
  redis.call('ZREM', key.waiting, heads[1].member)
  local request = requests.load_waiting(heads[1].id)
  requests.left_queue(request)
  advance_and_park(tree.charge, first.path, first.cost, eligible)
  requests.admit(request)
  if heads[2] then
    requests.wake(heads[2].id)
    standing.put(queue, heads[2])
  else
    standing.set_last_deadline(queue, nil)
  end
end

-- The first in line waits for a quota's refill, and everybody behind who needs that quota waits with
-- it. What the quota can never pay, since it was lowered, ends.
local function wait_for_refill(first, limiter)
  local head = standing.heads(first.queue, '1')[1]
  if not buckets.ms_until(limiter, first.cost) then
    requests.finish(requests.load(head.id), {
      state = 'rejected', code = 'invalid_request', message = 'costs more than its quota can ever hold',
    })
    return
  end
  buckets.hold(limiter, head.id, first.cost)
  if standing.state(first.queue).gate ~= limiter.name then
    standing.remove(first.queue)
    standing.put(first.queue, head)
  end
end

-- Opens a few of the gates that earlier steps left. 'after <gate> <limit key>' stands for all gates of
-- a limit behind that one.
local function open_due()
  for _, entry in ipairs(redis.call('SPOP', key.due, GATES_AT_ONCE)) do
    reads = reads + 2
    local gate, limit_key = entry:match('^after (%S+) (%S+)$')
    if not gate then
      open[entry] = true
    else
      for _ = 1, GATES_AT_ONCE do
        local found = redis.call('ZRANGEBYLEX', key.standing, '(q ' .. gate .. '!',
          '(q ' .. limit_key .. '>', 'LIMIT', '0', '1')[1]
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
  some_due = nil
end

function admit()
  if tree.node(ROOT).waiting == 0 then
    -- Nobody stands at any gate.
    open = {}
    if has_due() then
      redis.call('UNLINK', key.due)
      some_due = false
    end
    return
  end
  local frozen = is_frozen()
  while not frozen and moves + reads / READS_A_MOVE < MOVES_A_STEP do
    local gates = open_gates()
    if #gates < GATES_AT_ONCE and has_due() then
      open_due()
    elseif #gates == 0 then
      return
    else
      local first, eligible = choose(gates)
      -- A search that ran into the bound has not seen everyone: its choice does not count.
      if moves < MOVES_A_STEP then
        moves = moves + 1
        local short = first and limiters.first_short(first.path, first.cost)
        if short then
          wait_for_refill(first, short)
        elseif first then
          take(first, eligible)
        else
          -- Nobody at these gates may go.
          open = {}
        end
      end
    end
  end
  for gate in pairs(open) do
    add_due(gate)
  end
  open = {}
end

-- Whether a request that arrives goes without having queued. When no gate is due, nobody who waits
-- could go: so one that finds its queue empty and everything it needs open is the only one who can.
function may_pass(request)
  local path = tree.path(request.queue)
  return not (is_frozen() or has_due() or standing.has(request.queue) or limiters.first_closed(path)
    or limiters.first_short(path, request.cost))
end

function arrive(request)
  if not may_pass(request) then
    requests.enqueue(request)
    admit()
    return
  end
  local path = tree.path(request.queue)
  advance_and_park(tree.pass, path, request.cost, { [path.policy] = true, [path.workload] = true })
  requests.admit(request)
end
