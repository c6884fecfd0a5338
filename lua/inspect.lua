--[[
inspect: read-only, for people and for gateways that read again what they may have missed.

KEYS, ARGV: see lib/step.lua.
args: what 'request' (id) | 'live' (ids) | 'policies' | 'domain'.
result: live {ids} those that have not ended; request {found, request, ended, position, ahead, estimated_start_ms, waits_for}; policies
  {version, policies: [JSON]}; domain {limits, in_flight, nodes, waiting, body_bytes, replicas, members}.
Changes nothing.
]]
-- use step limiters tree standing requests capacity admit estimate

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

if args.what == 'request' then
  local request = requests.load(args.id)
  if not request then
    return answer({ ended = requests.ended(args.id) })
  end
  local result = { request = request }
  if request.state == 'waiting' then
    local waits_for = {}
    for _, name in ipairs(tree.path(request.queue).limiters) do
      if limiters.free(name) <= 0 then
        waits_for[#waits_for + 1] = { limiter = name, limit = limiters.limit(name), in_flight = limiters.taken(name) }
      end
    end
    result.position = estimate.position(request)
    result.ahead = estimate.ahead(request.queue)
    result.estimated_start_ms = estimate.wait_ms(request.queue, result.ahead)
    result.waits_for = #waits_for > 0 and waits_for or nil
  end
  return answer(result)
end

if args.what == 'live' then
  local live = {}
  for _, id in ipairs(args.ids) do
    if redis.call('HEXISTS', key.requests, id) == 1 then
      live[#live + 1] = id
    end
  end
  return answer({ ids = live })
end

if args.what == 'policies' then
  return answer({
    version = tonumber(redis.call('HGET', key.meta, 'version') or 0),
    schema = redis.call('HGET', key.meta, 'schema') or nil,
    policies = redis.call('HVALS', key.policies),
  })
end

local nodes = {}
for path, node in pairs(tree.inner()) do
  nodes[#nodes + 1] = { path = path, waiting = node.waiting, in_flight = node.held, v = string.format('%.0f', node.v) }
end
return answer({
  limits = pairs_of(key.limits),
  in_flight = pairs_of(key.in_flight),
  nodes = nodes,
  waiting = redis.call('ZCARD', key.waiting),
  live = redis.call('HLEN', key.requests),
  body_bytes = tonumber(redis.call('HGET', key.meta, 'body_bytes') or 0),
  replicas = pairs_of(key.replicas),
  members = pairs_of(key.members),
})
