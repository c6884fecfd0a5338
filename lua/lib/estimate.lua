-- What those who wait are told. The position in the own queue is exact; the rest is an estimate
-- from this moment: whoever waits under the same policy, times the mean service time, over the
-- slots of the narrowest shared limiter.

local estimate = {}

-- 1 for the head of its queue.
function estimate.position(request)
  return redis.call('ZLEXCOUNT', key.waiting, '[' .. request.queue .. ' ',
    '[' .. request.queue .. ' ' .. pad_sequence(request.sequence) .. '!')
end

-- Requests of the same policy that wait, this one not counted.
function estimate.ahead(queue)
  return math.max(0, tree.node(tree.path(queue).policy).waiting - 1)
end

function estimate.wait_ms(queue, ahead)
  local service_ms = tonumber(redis.call('HGET', key.meta, 'service_ms') or 1000)
  local slots = math.huge
  for _, name in ipairs(tree.path(queue).limiters) do
    if not name:find('=') then
      slots = math.min(slots, limiters.limit(name))
    end
  end
  if slots == math.huge then
    slots = 1
  end
  return math.floor(service_ms * (ahead + 1) / math.max(slots, 1))
end

-- An exponentially weighted mean, 1/8 a sample, as TCP's round trip estimator (RFC 6298).
function estimate.served(service_ms)
  local mean = tonumber(redis.call('HGET', key.meta, 'service_ms') or service_ms)
  redis.call('HSET', key.meta, 'service_ms', string.format('%.0f', mean + (service_ms - mean) / 8))
end
