-- How virtual time moves, and with it the shares of policies, workloads and keys: what the moves of a
-- request's life do to the nodes of lib/tree.lua.

local unpark
-- private
local passed, forgotten_keys
at_start(function()
  passed, forgotten_keys = fresh(passed), fresh(forgotten_keys)
end)

local function idle_member(parent, child)
  return parent.path .. ' ' .. tag_text(parent, child.start) .. ' ' .. child.path
end

-- An idle child is in the index of those that v may still pass.
local function leave_idle(parent, child)
  if child.in_idle then
    redis.call('ZREM', key.idle, idle_member(parent, child))
    child.in_idle = false
  end
end

-- Relative tags reach below 0 once v has begun a new turn.
local function lowest(parent)
  return parent.turns > 0 and -SPAN or 0
end

local function enter_idle(parent, child, indexed)
  if child.waiting > 0 then
    return
  end
  if child.debt ~= 0 then
    child.start = math.max(lowest(parent), child.start + child.debt)
    child.debt = 0
  end
  child.parked = false
  if not indexed or child.held > 0 then
    return
  end
  if child.is_key and child.start <= parent.v then
    child.gone = true
  else
    redis.call('ZADD', key.idle, '0', idle_member(parent, child))
    child.in_idle = true
  end
end

-- Where a child with nothing waiting begins, and the v at which a key's start was fixed.
local function begin(parent, child)
  child.start = math.max(parent.v, child.start)
  child.seen = parent.v
end

-- The virtual time of an inner node stands still while nothing in it can run: two that are blocked
-- together keep their places, and neither saves anything up.
function unpark(parent, child)
  if child.parked then
    child.start = child.start + parent.v - child.parked
    child.parked = false
  end
end

local function join(parent, child, weight, _, returns)
  leave_idle(parent, child)
  if returns then
    unpark(parent, child)
    local refund = tag_units(returns, weight)
    child.held = child.held - 1
    if child.is_key and child.waiting > 0 then
      -- Its other queues stand in the index with tags that must not become too large.
      child.debt = child.debt - refund
    else
      child.start = math.max(lowest(parent), child.start - refund, parent.v - refund)
      child.seen = parent.v
    end
  elseif child.waiting == 0 then
    begin(parent, child)
  end
  child.waiting = child.waiting + 1
  child.gone = false
end

-- A workload that comes back with nothing held when v has passed it. Keys that the step has not read
-- find out by their generation.
local function begin_anew_if_passed(path)
  local workload = tree.node(path.workload)
  if workload.waiting > 0 or workload.held > 0 or workload.start > tree.node(path.policy).v then
    return
  end
  for _, child in pairs(fair) do
    if child.workload == workload then
      leave_idle(workload, child)
      child.start, child.debt, child.seen, child.generation = 0, 0, 0, workload.generation + 1
    end
  end
  workload.generation = workload.generation + 1
  workload.v, workload.turns = 0, 0
end

-- One more request waits. `returns` is the cost of a request that was admitted, came to nothing
-- and takes its place again: what it was charged is taken back, at once unless others of its key wait.
function tree.arrive(path, returns)
  begin_anew_if_passed(path)
  each_level(path, join, returns)
  local root = tree.node(ROOT)
  root.waiting = root.waiting + 1
  if returns then
    root.held = root.held - 1
  end
end

local function quit(parent, child, _, indexed)
  child.waiting = child.waiting - 1
  enter_idle(parent, child, indexed)
end

-- A request left its queue without being admitted.
function tree.leave(path)
  each_level(path, quit)
  local root = tree.node(ROOT)
  root.waiting = root.waiting - 1
end

-- Keeps tags far below 2^53: v begins a new turn. As text, all tags stay what they were.
local function turn(parent)
  parent.v, parent.turns = parent.v - SPAN, parent.turns + 1
  local is_workload = parent.path:find('/')
  for _, child in pairs(is_workload and fair or tree.inner()) do
    if child.workload == parent or (not is_workload and child.parent == parent.path) then
      child.start = child.start - SPAN
      child.seen = child.seen and child.seen - SPAN
      child.parked = child.parked and child.parked - SPAN
    end
  end
end

-- A key whose tag v has passed since its start was fixed stood blocked meanwhile: its tag is raised
-- to v, so that it is next in line and has nothing saved up.
local function advance(parent, child, cost, weight)
  local length = tag_units(cost, weight)
  local tag = child.start + length
  if child.is_key and tag < parent.v and parent.v > child.seen then
    tag = parent.v
  end
  if tag > parent.v then
    parent.v = tag
    passed[parent] = (passed[parent] or 0) + 1
  end
  -- A refund never takes start back, since tags that stand at other gates must not be too large: what
  -- is left of it counts at the next admissions.
  local settled = tag + child.debt
  child.start = math.max(tag - length, settled)
  child.debt, child.seen = settled - child.start, parent.v
end

local function charge(parent, child, weight, indexed, cost)
  advance(parent, child, cost, weight)
  child.waiting = child.waiting - 1
  child.held = child.held + 1
  enter_idle(parent, child, indexed)
  if parent.v >= SPAN then
    turn(parent)
  end
end

-- A request that finds nobody before it: joins and is charged at once.
local function pass(parent, child, weight, _, cost)
  if child.in_idle then
    leave_idle(parent, child)
  end
  if child.waiting == 0 then
    begin(parent, child)
  end
  unpark(parent, child)
  advance(parent, child, cost, weight)
  child.held, child.gone = child.held + 1, false
  if parent.v >= SPAN then
    turn(parent)
  end
end

-- A request of `cost` is admitted without having waited.
function tree.pass(path, cost)
  begin_anew_if_passed(path)
  each_level(path, pass, cost)
  local root = tree.node(ROOT)
  root.held = root.held + 1
end

-- A request of `cost` is admitted: charge it at every level.
function tree.charge(path, cost)
  each_level(path, charge, cost)
  local root = tree.node(ROOT)
  root.waiting = root.waiting - 1
  root.held = root.held + 1
end

local function correct(parent, child, weight, indexed, charged, actual)
  child.held = child.held - 1
  if actual ~= charged then
    child.debt = child.debt + tag_units(actual, weight) - tag_units(charged, weight)
  end
  if child.waiting == 0 then
    enter_idle(parent, child, indexed)
  end
end

-- The lease is over: the actual cost takes the place of the charged one, once.
function tree.settle(path, charged, actual)
  each_level(path, correct, charged, actual)
  local root = tree.node(ROOT)
  root.held = root.held - 1
end

local function let_in(parent, child)
  leave_idle(parent, child)
  child.held = child.held + 1
  child.gone = false
end

-- A request that holds slots belongs to another queue from now on; what it was charged stays.
function tree.move_held(from, to)
  each_level(from, correct, 1, 1)
  begin_anew_if_passed(to)
  each_level(to, let_in)
end

-- Keys and workloads that v has passed carry no debt: forget more for each admission than it can leave
-- behind, so that memory is bounded by who is active. A workload goes only after its keys have gone.
local PRUNED_AN_ADMISSION = 4
local function forget(path)
  local node = inner[path] or fair[path]
  if node then
    node.gone, node.in_idle = true, false
  else
    forgotten_keys[#forgotten_keys + 1] = path
  end
end

local function prune(parent, most)
  local past = redis.call('ZRANGEBYLEX', key.idle, '[' .. parent.path .. ' ',
    '(' .. parent.path .. ' ' .. tag_text(parent, parent.v) .. '!', 'LIMIT', '0', most)
  local members = {}
  for _, member in ipairs(past) do
    local child = member:match('^%S+ %S+ (%S+)$')
    local is_workload = not parent.path:find('/')
    local below = is_workload and lex_range(key.idle, child, '0', most) or NOTHING
    for _, grandchild in ipairs(below) do
      members[#members + 1] = grandchild
      forget(grandchild:match('^%S+ %S+ (%S+)$'))
    end
    if #below < most then
      members[#members + 1] = member
      if is_workload then
        tree.node(child)
      end
      forget(child)
    end
  end
  call_with('ZREM', key.idle, members)
end

-- Writes back what changed. With nothing waiting and every lease settled, virtual time starts again
-- from 0.
function tree.save()
  if not next(inner) then
    return
  end
  local root = tree.node(ROOT)
  if root.waiting == 0 and root.held == 0 then
    if root.stored then
      redis.call('UNLINK', key.tree, key.fair, key.idle)
    end
    return
  end
  if next(passed) and redis.call('EXISTS', key.idle) == 1 then
    for parent, admissions in pairs(passed) do
      if parent.path ~= ROOT then
        prune(parent, PRUNED_AN_ADMISSION * admissions)
      end
    end
  end
  for path, node in pairs(inner) do
    if node.gone and node.waiting == 0 and node.held == 0 then
      write(inner_hash, path, false)
    elseif node.stored or node.waiting + node.held > 0 or node.start > 0 then
      local text = string.format('%s %s %d %d %d %s %d %s', whole(node.start), whole(node.debt), node.waiting,
        node.held, node.generation, whole(node.v), node.turns, node.parked and whole(node.parked) or '-')
      if text ~= node.stored then
        write(inner_hash, path, text)
      end
    end
  end
  flush(inner_hash)
  local sets, removals = {}, forgotten_keys
  for path, node in pairs(fair) do
    if node.waiting == 0 and node.held == 0 and not node.in_idle then
      if node.stored then
        removals[#removals + 1] = path
      end
    else
      local debt = whole(node.debt)
      local text = string.format('%s %s %d %d %d %s %d', tag_text(node.workload, node.start), debt, node.waiting, node.held,
        node.generation, tag_text(node.workload, node.seen), node.queues)
      if text ~= node.stored then
        sets[#sets + 1] = path
        sets[#sets + 1] = text
      end
    end
  end
  flush_lists(key.fair, sets, removals)
end
