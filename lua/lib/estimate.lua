-- What those who wait are told. The position in the own queue is exact; the start is an estimate
-- from this moment: for each limit that the request needs, how many are ahead of it there, times the
-- mean service time, over the units; for a quota, the tokens ahead over its fill. The longest counts.

local estimate = {}

-- Requests of the same policy that wait, this one not counted.
function estimate.ahead(queue)
  return math.max(0, tree.node(tree.path(queue).policy).waiting - 1)
end

function estimate.wait_ms(queue, cost, position, ahead)
  local service_ms = tonumber(read(meta, 'service_ms') or 1000)
  local longest = 0
  for _, name in ipairs(tree.path(queue).limiters) do
    local limiter = limiters.get(name)
    -- A label's limit is shared by those of the same label: about the own queue.
    local before = name:find('=') and position or ahead + 1
    local wait = 0
    if limiter.bucket then
      local short = math.max(0, before * cost - buckets.tokens(limiter))
      wait = short * limiter.bucket.interval / limiter.bucket.fill
    elseif limiter.limit < math.huge then
      wait = before * service_ms / math.max(1, limiter.limit)
    end
    longest = math.max(longest, wait)
  end
  return math.ceil(longest)
end

-- An exponentially weighted mean, 1/8 a sample, as TCP's round trip estimator (RFC 6298).
function estimate.served(service_ms)
  local mean = tonumber(read(meta, 'service_ms') or service_ms)
  write(meta, 'service_ms', mean + (service_ms - mean) / 8)
end
