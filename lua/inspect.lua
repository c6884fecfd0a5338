--[[
inspect: read-only, for people and for gateways that read again what they may have missed.

KEYS, ARGV: see lib/step.lua.
args: what 'request' (id) | 'live' (ids, waiting (bool: only those that wait)) | 'places' (ids) |
  'page' (hash 'held' or 'requests', cursor, count) | 'policies' | 'replicas' |
  'replica' (id) |
  'domain' (control_points, whose lengths are asked for).
result: live {ids} those that have not ended; places {places: [{id, position, ahead,
  estimated_start_ms}]} of those that wait; request {request, ended, position, ahead,
  estimated_start_ms, waits_for [{limiter, limit, in_flight, held_by [ids]} or, for a quota, {limiter,
  limit, tokens, refill_ms, held_for (id)}]}; page {cursor, requests [{id, kind, control_point, labels,
  pool, cost, queue, state, created_at, and of those that hold slots admitted_at and end_by, when their
  lease is over}]}; policies {version, schema, rekeying, paused [control points], policies: [JSON]}; replicas {replicas};
  replica {replica, probe (JSON), in_flight}; domain {limits,
  in_flight (of all that is shared, and of some 256 values of labels), nodes, lengths, waiting, live,
  body_bytes, replicas, members, probes, paused_pools and probers (by pool)}.
Changes nothing.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests admit estimate

-- Holders looked at, and named, for one limiter.
local HOLDERS_SEEN = 512
local HOLDERS_NAMED = 16
-- Values of labels told of a domain, which may have as many as users.
local VALUES_TOLD = 256

local function answer(result)
  return cjson.encode({ now = now_ms, result = result })
end

local function pairs_of(hash)
  local flat, list = redis.call('HGETALL', hash), {}
  for i = 1, #flat, 2 do
    list[#list + 1] = { flat[i], flat[i + 1] }
  end
  return list
end

-- What meta says of pools, by what precedes their names there.
local function of_pools(before)
  local list = {}
  for _, pair in ipairs(pairs_of(key.meta)) do
    if pair[1]:sub(1, #before) == before then
      list[#list + 1] = { pair[1]:sub(#before + 1), pair[2] }
    end
  end
  return list
end

-- Fields that are set, of those asked for.
local function pairs_among(hash, fields)
  local list = {}
  for i, value in ipairs(read_many(hash, fields)) do
    if value then
      list[#list + 1] = { fields[i], value }
    end
  end
  return list
end

-- Units that are taken.
local function taken_units()
  local names = redis.call('HKEYS', key.limits)
  for _, id in ipairs(redis.call('HKEYS', key.replicas)) do
    names[#names + 1] = 'replica:' .. id
  end
  local list = pairs_among(key.in_flight, names)
  local page = redis.call('HSCAN', key.in_flight, '0', 'COUNT', VALUES_TOLD)[2]
  for i = 1, #page, 2 do
    if page[i]:find('=', 1, true) then
      list[#list + 1] = { page[i], page[i + 1] }
    end
  end
  return list
end

-- Live requests of a page of a hash.
local function page_of(hash, cursor, count)
  local page, list = redis.call('HSCAN', key[hash], cursor, 'COUNT', count), {}
  for i = 1, #page[2], 2 do
    list[#list + 1] = requests.load(page[2][i])
  end
  return page[1], list
end

local function holders_of(names)
  local held_by = {}
  local _, held = page_of('held', '0', HOLDERS_SEEN)
  for _, request in ipairs(held) do
    for _, name in ipairs(tree.path(request.queue).limiters) do
      local list = names[name] and (held_by[name] or {})
      if list and #list < HOLDERS_NAMED then
        list[#list + 1] = request.id
        held_by[name] = list
      end
    end
  end
  return held_by
end

-- The limits that keep a waiting request from going, and who holds them.
local function waits_for(request)
  local list, slots = {}, {}
  for _, name in ipairs(tree.path(request.queue).limiters) do
    local limiter = limiters.get(name)
    local refill_ms = limiter.bucket and buckets.ms_until(limiter, request.cost)
    if limiter.bucket and (refill_ms ~= 0 or not limiters.is_open(name)) then
      list[#list + 1] = {
        limiter = name, limit = limiter.bucket.capacity, tokens = buckets.tokens(limiter), refill_ms = refill_ms,
        held_for = buckets.held_for(limiter) ~= '-' and buckets.held_for(limiter) or nil,
      }
    elseif not limiters.is_open(name) then
      slots[name] = { limiter = name, limit = limiter.limit, in_flight = limiter.taken }
      list[#list + 1] = slots[name]
    end
  end
  local held_by = next(slots) and holders_of(slots) or {}
  for name, entry in pairs(slots) do
    entry.held_by = held_by[name]
  end
  return list
end

local function plain(request)
  return {
    id = request.id, control_point = requests.control_point(request), labels = requests.labels(request),
    pool = request.pool, cost = request.cost, queue = request.queue, state = request.state,
  }
end

local function place_of(request)
  local position, ahead = standing.position(request), estimate.ahead(request.queue)
  return {
    id = request.id, position = position, ahead = ahead,
    estimated_start_ms = estimate.wait_ms(request.queue, request.cost, position, ahead),
  }
end

if args.what == 'places' then
  requests.fetch(args.ids)
  local places = {}
  for _, id in ipairs(args.ids) do
    local request = requests.load(id)
    if request and request.state == 'waiting' then
      places[#places + 1] = place_of(request)
    end
  end
  return answer({ places = places })
end

if args.what == 'request' then
  local request = requests.load(args.id)
  if not request then
    local past = ended.get(args.id)
    return answer({ ended = past and requests.past(past) })
  end
  local result = {}
  if request.state == 'waiting' then
    local place = place_of(request)
    result.position, result.ahead, result.estimated_start_ms = place.position, place.ahead, place.estimated_start_ms
    local list = waits_for(request)
    result.waits_for = #list > 0 and list or nil
  end
  local told = plain(request)
  for _, field in ipairs({
    'attempt', 'failures', 'end_by', 'started_at', 'worker', 'replica', 'owner', 'bytes', 'story',
  }) do
    told[field] = request[field]
  end
  told.kind, told.job = request.pool and 'prompt' or 'flow', request.job or nil
  told.sequence, told.created_at = tonumber(request.sequence), tonumber(request.created_at)
  told.admitted_at, told.deadline = tonumber(request.admitted_at), request.created_at + request.timeout_ms
  result.request = told
  return answer(result)
end

if args.what == 'page' then
  local cursor, list = page_of(args.hash, args.cursor, args.count)
  for i, request in ipairs(list) do
    local told = plain(request)
    told.kind, told.created_at = request.pool and 'prompt' or 'flow', tonumber(request.created_at)
    if request.state ~= 'waiting' then
      told.admitted_at = tonumber(request.admitted_at)
      told.end_by = math.min(request.end_by, request.lease_until or request.end_by)
    end
    list[i] = told
  end
  return answer({ cursor = cursor, requests = list })
end

if args.what == 'live' then
  requests.fetch(args.ids)
  local live = {}
  for _, id in ipairs(args.ids) do
    local request = requests.load(id)
    if request and (not args.waiting or request.state == 'waiting') then
      live[#live + 1] = id
    end
  end
  return answer({ ids = live })
end

if args.what == 'replica' then
  return answer({
    replica = redis.call('HGET', key.replicas, args.id) or nil, probe = redis.call('HGET', key.probes, args.id) or nil,
    in_flight = capacity.taken(args.id),
  })
end

if args.what == 'replicas' then
  return answer({ replicas = pairs_of(key.replicas) })
end

if args.what == 'policies' then
  local paused = {}
  for limit_key in pairs(limiters.all()) do
    paused[#paused + 1] = limit_key:match('^paused:(.*)$')
  end
  return answer({
    paused = paused,
    version = tonumber(read(meta, 'version') or 0),
    schema = read(meta, 'schema') or nil,
    rekeying = tonumber(read(meta, 'rekeying') or nil),
    policies = redis.call('HVALS', key.policies),
  })
end

local nodes = {}
for path, node in pairs(tree.inner()) do
  nodes[#nodes + 1] = {
    path = path, waiting = node.waiting, in_flight = node.held, v = string.format('%.0f', node.v),
    start = string.format('%.0f', node.start), parked = node.parked ~= false,
  }
end
return answer({
  limits = pairs_of(key.limits),
  in_flight = taken_units(),
  nodes = nodes,
  lengths = pairs_among(key.lengths, args.control_points),
  waiting = redis.call('HLEN', key.requests),
  live = redis.call('HLEN', key.requests) + redis.call('HLEN', key.held),
  body_bytes = tonumber(read(meta, 'body_bytes') or 0),
  replicas = pairs_of(key.replicas),
  members = pairs_of(key.members),
  probes = pairs_of(key.probes),
  paused_pools = of_pools('paused pool '),
  probers = of_pools('prober '),
})
