-- Virtual time. Hierarchical self-clocked fair queueing (Golestani, INFOCOM 1994; the hierarchy
-- after Bennett and Zhang, SIGCOMM 1996): root -> policies -> workloads -> fairness keys.
--
-- A node keeps, as a child of its parent,
--   start    where its next request begins in the parent's virtual time: fixed when the node
--            becomes backlogged and at each of its admissions, never in between
--   debt     settlement not yet in `start`: it counts from the node's next admission
--   waiting  requests in its queues; held: leases not yet settled
-- and, for its own children, v (its virtual time: the largest finish tag admitted below it).
-- `parked` marks an inner node that v of its parent passed while nothing in it could run. A workload
-- that comes back when v has passed it, with nothing held, begins anew: its own v is 0 again and its
-- keys' tags are forgotten, which `generation` tells.
--
-- A child with head cost l and weight w has the finish tag start + l / w. The smallest eligible
-- tag is admitted; then v = max(v, tag). Tags are integers, 1/1000 token. Root, policies and
-- workloads are few (tree.fold sees to it) and read as a whole; fairness keys are many and read one
-- by one.

local tree = {}
local ROOT = '.'
local inner, fair, paths = nil, {}, {}

local function tag_units(cost, weight)
  return math.max(1, math.floor(cost * 1000 / weight + 0.5))
end

local function parse(text, stored)
  local n = split(stored, '%S+')
  return {
    path = text, start = tonumber(n[1]), debt = tonumber(n[2]), waiting = tonumber(n[3]),
    held = tonumber(n[4]), generation = tonumber(n[5]), v = tonumber(n[6] or 0),
    parked = n[7] == '1', stored = stored,
  }
end

local function blank(path, generation)
  return {
    path = path, start = 0, debt = 0, waiting = 0, held = 0, generation = generation or 0, v = 0,
    parked = false,
  }
end

local function idle_member(parent, child)
  return parent.path .. ' ' .. pad_tag(child.start) .. ' ' .. child.path
end

-- Where a queue stands in the tree, from its name 'policy/workload@weight/fairness key/limiters'.
function tree.path(queue)
  if not paths[queue] then
    local policy, workload, fairness, names = queue:match('^([^/]*)/([^/]*)/([^/]*)/(.*)$')
    local needs = split(names, '[^,]+')
    paths[queue] = {
      policy = policy,
      workload = policy .. '/' .. workload,
      fair = policy .. '/' .. workload .. '/' .. fairness,
      weight = tonumber(workload:match('@([^@]*)$')),
      limiters = needs,
      -- A request that needs no limiter stands at a gate that is always open.
      home = needs[1] or '-',
    }
  end
  return paths[queue]
end

-- Policies and workloads are compared one by one, so there must be few, whatever names callers
-- invent: past the limit a new workload's requests share one of weight 1.
local WORKLOADS = 128
function tree.fold(queue)
  local path = tree.path(queue)
  local nodes, count = tree.inner(), 0
  if nodes[path.workload] then
    return queue
  end
  for _ in pairs(nodes) do
    count = count + 1
  end
  if count < WORKLOADS then
    return queue
  end
  local policy, rest = queue:match('^([^/]*)/[^/]*(/.*)$')
  return policy .. '/(others)@1' .. rest
end

function tree.inner()
  if not inner then
    inner = {}
    local flat = redis.call('HGETALL', key.tree)
    for i = 1, #flat, 2 do
      inner[flat[i]] = parse(flat[i], flat[i + 1])
    end
    inner[ROOT] = inner[ROOT] or blank(ROOT)
  end
  return inner
end

function tree.node(path)
  local nodes = tree.inner()
  nodes[path] = nodes[path] or blank(path)
  return nodes[path]
end

function tree.fair(path)
  if not fair[path] then
    local workload = tree.node(path:match('^(.*)/'))
    local stored = redis.call('HGET', key.fair, path)
    local node = stored and parse(path, stored)
    if node and node.generation ~= workload.generation then
      redis.call('ZREM', key.idle, idle_member(workload, node))
      node = nil
    end
    fair[path] = node or blank(path, workload.generation)
  end
  return fair[path]
end

-- The steps from the root to the fairness key of a queue: {parent, child, weight}.
function tree.levels(path)
  return {
    { parent = tree.node(ROOT), child = tree.node(path.policy), weight = 1 },
    { parent = tree.node(path.policy), child = tree.node(path.workload), weight = path.weight, indexed = true },
    { parent = tree.node(path.workload), child = tree.fair(path.fair), weight = 1, indexed = true },
  }
end

local function leave_idle(level)
  if level.indexed and level.child.waiting == 0 and level.child.held == 0 then
    redis.call('ZREM', key.idle, idle_member(level.parent, level.child))
  end
end

local function enter_idle(level)
  local child = level.child
  if child.waiting > 0 then
    return
  end
  child.start = math.max(0, child.start + child.debt)
  child.debt = 0
  child.parked = false
  if not level.indexed or child.held > 0 then
    return
  end
  if child == fair[child.path] and child.start <= level.parent.v then
    child.gone = true
  else
    redis.call('ZADD', key.idle, 0, idle_member(level.parent, child))
  end
end

-- One more request waits. `returns` is the cost of a request that was admitted, came to nothing
-- and takes its place again: what it was charged is taken back, at once.
function tree.arrive(path, returns)
  local workload = tree.node(path.workload)
  if workload.waiting == 0 and workload.held == 0 and workload.start <= tree.node(path.policy).v then
    workload.generation = workload.generation + 1
    workload.v = 0
  end
  for _, level in ipairs(tree.levels(path)) do
    local child, parent = level.child, level.parent
    leave_idle(level)
    if returns then
      local refund = tag_units(returns, level.weight)
      child.start = math.max(0, child.start - refund, parent.v - refund)
      child.held = child.held - 1
    elseif child.waiting == 0 then
      child.start = math.max(parent.v, child.start)
    end
    child.waiting = child.waiting + 1
    child.gone = false
  end
  local root = tree.node(ROOT)
  root.waiting = root.waiting + 1
  if returns then
    root.held = root.held - 1
  end
end

-- A request left its queue without being admitted.
function tree.leave(path)
  for _, level in ipairs(tree.levels(path)) do
    level.child.waiting = level.child.waiting - 1
    enter_idle(level)
  end
  local root = tree.node(ROOT)
  root.waiting = root.waiting - 1
end

-- Keys and workloads that v has passed carry no debt: forget a few, so that memory is bounded by
-- who is active. A workload goes only after its keys have gone.
local PRUNED_A_STEP = 4
local function forget(path)
  local node = inner[path] or fair[path]
  if node then
    node.gone = true
  else
    redis.call('HDEL', key.fair, path)
  end
end
local function prune(parent)
  local passed = redis.call('ZRANGEBYLEX', key.idle, '[' .. parent.path .. ' ',
    '(' .. parent.path .. ' ' .. pad_tag(parent.v) .. '!', 'LIMIT', 0, PRUNED_A_STEP)
  for _, member in ipairs(passed) do
    local child = member:match('(%S+)$')
    local below = inner[child] and lex_range(key.idle, child, 0, PRUNED_A_STEP) or {}
    for _, grandchild in ipairs(below) do
      redis.call('ZREM', key.idle, grandchild)
      forget(grandchild:match('(%S+)$'))
    end
    if #below < PRUNED_A_STEP then
      redis.call('ZREM', key.idle, member)
      forget(child)
    end
  end
end

-- A request of `cost` is admitted: charge it at every level. `seen` is the workload's v when the
-- request became the head of its queue: if v has passed its tag since, the queue stood blocked
-- meanwhile, and the tag is raised to v, so that it is next in line and has nothing saved up.
function tree.charge(path, cost, seen)
  for depth, level in ipairs(tree.levels(path)) do
    local child, parent = level.child, level.parent
    local length = tag_units(cost, level.weight)
    local tag = child.start + length
    if depth == 3 and tag < parent.v and parent.v > seen then
      tag = parent.v
    end
    local moved = tag > parent.v
    parent.v = math.max(parent.v, tag)
    child.start = tag + child.debt
    if child.debt < 0 then
      child.start = math.max(child.start, parent.v - length)
    end
    child.debt = 0
    child.waiting = child.waiting - 1
    child.held = child.held + 1
    enter_idle(level)
    if moved and level.indexed then
      prune(parent)
    end
  end
  local root = tree.node(ROOT)
  root.waiting = root.waiting - 1
  root.held = root.held + 1
end

-- The lease is over: the actual cost takes the place of the charged one, once.
function tree.settle(path, charged, actual)
  for _, level in ipairs(tree.levels(path)) do
    local child = level.child
    local delta = tag_units(actual, level.weight) - tag_units(charged, level.weight)
    child.held = child.held - 1
    if child.waiting > 0 then
      child.debt = child.debt + delta
    else
      child.start = math.max(0, child.start + delta)
      enter_idle(level)
    end
  end
  local root = tree.node(ROOT)
  root.held = root.held - 1
end

-- Writes back what the step read. With nothing waiting and every lease settled, virtual time
-- starts again from 0.
function tree.save()
  local function store(hash, node, with_v)
    if node.gone and node.waiting == 0 and node.held == 0 then
      redis.call('HDEL', hash, node.path)
      return
    end
    local text = string.format('%.0f %.0f %d %d %d', node.start, node.debt, node.waiting, node.held, node.generation)
    if with_v then
      text = text .. string.format(' %.0f %d', node.v, node.parked and 1 or 0)
    end
    if text ~= node.stored then
      redis.call('HSET', hash, node.path, text)
    end
  end
  if not inner then
    return
  end
  local root = tree.node(ROOT)
  if root.waiting == 0 and root.held == 0 then
    redis.call('DEL', key.tree, key.fair, key.idle)
    return
  end
  for _, node in pairs(inner) do
    store(key.tree, node, true)
  end
  for _, node in pairs(fair) do
    store(key.fair, node, false)
  end
end
