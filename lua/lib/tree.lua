-- Virtual time. Hierarchical self-clocked fair queueing (Golestani, INFOCOM 1994; the hierarchy
-- after Bennett and Zhang, SIGCOMM 1996): root -> policies -> workloads -> fairness keys.
--
-- A node keeps, as a child of its parent,
--   start    where its next request begins in the parent's virtual time: fixed when the node
--            becomes backlogged and at each of its admissions, never in between
--   debt     settlement not yet in `start`: it counts from the node's next admission
--   waiting  requests in its queues; held: leases not yet settled
-- and, for its own children, v (its virtual time: the largest finish tag admitted below it).
-- `parked` is v of the parent when nothing in an inner node could run first: its time stands still from
-- then on. `seen` is v of the parent when a key's start was fixed; `queues`, how many queues of a key
-- are not empty. A workload that comes back when v has passed it, with nothing held, begins anew: its own
-- v is 0 again and its keys' tags are forgotten, which `generation` tells.
--
-- A child with head cost l and weight w has the finish tag start + l / w. The smallest eligible
-- tag is admitted; then v = max(v, tag). Tags are integers, 1/1000 token. Root, policies and
-- workloads are few (tree.fold sees to it); fairness keys are many and read one by one.
--
-- In a step, tags are numbers relative to `turns` of the parent, the spans of SPAN that v has behind
-- it: so they stay whole numbers for ever (doubles do up to 2^53). In Redis a key's tag is text of
-- fixed width, turns first.

local tree = {}
local ROOT = '.'
local SPAN = 2 ^ 52
local inner, fair, inner_hash
local tag_units, tag_text, each_level
-- private
-- What a queue's name says is the same in every call: that of some is kept.
local PATHS_KEPT = 512
local paths, paths_known = {}, 0
local all_read, new_nodes
at_start(function()
  inner, fair, inner_hash = fresh(inner), fresh(fair), cached(inner_hash, key.tree)
  all_read, new_nodes = false, 0
end)

function tag_units(cost, weight)
  if weight == 1 then
    return cost * 1000
  end
  return math.max(1, math.floor(cost * 1000 / weight + 0.5))
end

-- The text of a tag in the virtual time of `parent`; texts are in the order of tags. In two halves:
-- %d is fast, but a C long, of 32 bits in a WebAssembly server.
local HALF = 1e8
function tag_text(parent, tag)
  local turns = parent.turns
  if tag < 0 or tag >= SPAN then
    local more = math.floor(tag / SPAN)
    turns, tag = math.max(0, turns + more), tag - more * SPAN
  end
  local low = tag % HALF
  return string.format('%04d%08d%08d', turns, (tag - low) / HALF, low)
end

local function tag_number(parent, text)
  if parent.turns == 0 and text < '0001' then
    return tonumber(text)
  end
  return tonumber(text:sub(5)) + (tonumber(text:sub(1, 4)) - parent.turns) * SPAN
end

local function parent_of(path)
  if path == ROOT then
    return nil
  end
  return path:match('^([^/]+)/') or ROOT
end

local function parse_inner(path, stored)
  local node = { path = path, parent = parent_of(path), stored = stored }
  if stored then
    local start, debt, waiting, held, generation, v, turns, parked =
      stored:match('^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
    node.start, node.debt, node.waiting = tonumber(start), tonumber(debt), tonumber(waiting)
    node.held, node.generation, node.v = tonumber(held), tonumber(generation), tonumber(v)
    node.turns, node.parked = tonumber(turns), parked ~= '-' and tonumber(parked)
    -- Policies are in no index: the root has few children.
    node.in_idle = path:find('/') and node.waiting + node.held == 0 or false
  else
    node.start, node.debt, node.waiting, node.held, node.generation = 0, 0, 0, 0, 0
    node.v, node.turns, node.parked = 0, 0, false
  end
  return node
end

function tree.node(path)
  local node = inner[path]
  if not node then
    node = parse_inner(path, not all_read and read(inner_hash, path))
    inner[path] = node
  end
  return node
end

-- All policies and workloads, by path.
function tree.inner()
  if not all_read then
    all_read = true
    local flat = redis.call('HGETALL', key.tree)
    for i = 1, #flat, 2 do
      if not inner[flat[i]] then
        inner[flat[i]] = parse_inner(flat[i], flat[i + 1])
      end
    end
    tree.node(ROOT)
  end
  return inner
end

-- Where a queue stands in the tree, from its name 'policy/workload@weight/fairness key/limiters'.
function tree.path(queue)
  local path = paths[queue]
  if not path then
    local fair_path, workload, policy, names = queue:match('^((([^/]*)/[^/]*)/[^/]*)/(.*)$')
    local in_workload = queue:sub(#workload + 2)
    local list, from, comma = {}, 1, names:find(',', 1, true)
    while comma do
      list[#list + 1] = names:sub(from, comma - 1)
      from = comma + 1
      comma = names:find(',', from, true)
    end
    if from <= #names then
      list[#list + 1] = names:sub(from)
    end
    paths_known = paths_known + 1
    if paths_known > PATHS_KEPT then
      paths, paths_known = {}, 1
    end
    path = {
      queue = queue, policy = policy, workload = workload, fair = fair_path, weight = tonumber(workload:match('@([^@]*)$')),
      -- A request that needs no limiter stands at a gate that is always open.
      limiters = list, home = list[1] or '-', in_workload = in_workload, in_key = names,
    }
    paths[queue] = path
  end
  return path
end

-- Policies and workloads are compared one by one, so there must be few, whatever names callers
-- invent: past the limit a new workload's requests share one of weight 1.
local WORKLOADS = 128
function tree.fold(queue)
  local path = tree.path(queue)
  local known = tree.node(path.workload)
  if known.stored or known.waiting + known.held > 0 then
    return queue
  end
  if redis.call('HLEN', key.tree) + new_nodes < WORKLOADS then
    new_nodes = new_nodes + 1
    return queue
  end
  inner[path.workload] = nil
  local policy, rest = queue:match('^([^/]*)/[^/]*(/.*)$')
  return policy .. '/(others)@1' .. rest
end

local function add_fair(path, stored)
  local workload = tree.node(path.workload)
  local node = {
    path = path.fair, workload = workload, is_key = true, stored = stored, start = 0, debt = 0, waiting = 0, held = 0,
    generation = workload.generation, seen = 0, queues = 0, in_idle = false, gone = false, parked = false,
  }
  if stored then
    local tag, debt, waiting, held, generation, seen, queues =
      stored:match('^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
    if tonumber(generation) == workload.generation then
      node.start, node.debt = tag_number(workload, tag), tonumber(debt)
      node.waiting, node.held, node.queues = tonumber(waiting), tonumber(held), tonumber(queues)
      node.seen = tag_number(workload, seen)
      node.in_idle = node.waiting + node.held == 0
    else
      redis.call('ZREM', key.idle, path.workload .. ' ' .. tag .. ' ' .. path.fair)
    end
  end
  fair[path.fair] = node
  return node
end

-- The fairness key of a path.
function tree.fair(path)
  return fair[path.fair] or add_fair(path, redis.call('HGET', key.fair, path.fair))
end

-- Reads what a step needs of many paths at once.
function tree.fetch(list)
  local nodes, keys, wanted = { ROOT }, {}, {}
  for _, path in ipairs(list) do
    if inner[path.policy] == nil then
      nodes[#nodes + 1] = path.policy
    end
    if inner[path.workload] == nil then
      nodes[#nodes + 1] = path.workload
    end
    if fair[path.fair] == nil then
      fair[path.fair] = false
      keys[#keys + 1] = path.fair
      wanted[#wanted + 1] = path
    end
  end
  fetch(inner_hash, nodes)
  local stored = read_many(key.fair, keys)
  for i, path in ipairs(wanted) do
    add_fair(path, stored[i])
  end
end

-- Calls `visit(parent, child, weight, indexed, ...)` for each step from the root to the fairness key.
function each_level(path, visit, a, b)
  local policy, workload = tree.node(path.policy), tree.node(path.workload)
  visit(tree.node(ROOT), policy, 1, false, a, b)
  visit(policy, workload, path.weight, true, a, b)
  visit(workload, fair[path.fair] or tree.fair(path), 1, true, a, b)
end
