-- Ends every step: admits what it made possible, saves, publishes what it caused and answers with
-- the time at which something is due next. Numbers leave as JSON: Redis would cut off a fraction.

local function close(result)
  admit()
  tree.save()
  for _, event in ipairs(events) do
    redis.call('PUBLISH', key.channel .. event[1], cjson.encode(event[2]))
  end
  local timer = redis.call('ZRANGE', key.timers, 0, 0, 'WITHSCORES')[2]
  local offer_again = redis.call('ZRANGE', key.outbox, 0, 0, 'WITHSCORES')[2]
  local due = math.min(tonumber(timer or math.huge), tonumber(offer_again or math.huge))
  if redis.call('EXISTS', key.due) == 1 then
    due = now_ms
  end
  return cjson.encode({
    now = now_ms,
    result = result,
    dispatch = #dispatch > 0 and dispatch or nil,
    due = due < math.huge and due or nil,
  })
end
