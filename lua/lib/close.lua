-- Ends every step: saves, publishes what it caused and answers with the time at which something is
-- due next, and whether anybody waits. Numbers leave as JSON: Redis would cut off a fraction.

local function close(result)
  admit()
  tree.save()
  standing.save()
  buckets.save()
  requests.flush()
  limiters.save()
  ended.save()
  flush(meta)
  flush_scores(timers)
  flush_scores(outbox)
  for channel, list in pairs(events) do
    redis.call('PUBLISH', key.channel .. channel, cjson.encode(list))
  end
  local timer = redis.call('ZRANGE', key.timers, '0', '0', 'WITHSCORES')[2]
  local offer_again = redis.call('ZRANGE', key.outbox, '0', '0', 'WITHSCORES')[2]
  local due = math.min(tonumber(timer or math.huge), tonumber(offer_again or math.huge))
  local rekeying = read(meta, 'rekeying') or nil
  if not rekeying and has_due() then
    due = now_ms
  end
  return cjson.encode({
    now = now_ms,
    result = result,
    dispatch = #dispatch > 0 and dispatch or nil,
    due = due < math.huge and due or nil,
    rekeying = rekeying,
    waiting = tree.node(ROOT).waiting > 0 or nil,
  })
end
