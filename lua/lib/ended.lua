-- How requests ended, so that a repeat is known and a job can be fetched. Kept in two generations:
-- a sweep begins a new one when the last is as old as records are kept, and drops the one before, so
-- nothing has to be removed one by one. Kept as 'state ended_at', then the record as it was, and what
-- else there is to say in JSON: a line each.

local ended = {}
local generations = {
  { now = cached(key.ended), before = cached(key.ended_before), keep_ms = args.keep_ms, turned = 'ended_turned' },
  { now = cached(key.jobs_ended), before = cached(key.jobs_ended_before), keep_ms = args.keep_job_ms,
    turned = 'jobs_turned' },
}

-- How long what remains of a request is kept, ms.
function ended.keep_ms(request)
  return request.job and args.keep_job_ms or args.keep_ms
end

function ended.fetch(ids, are_jobs)
  local kept = generations[are_jobs and 2 or 1]
  fetch(kept.now, ids)
  fetch(kept.before, ids)
end

local function find(kept, id)
  local stored = read(kept.now, id) or read(kept.before, id)
  if not stored then
    return nil
  end
  local state, ended_at, rest = stored:match('^(%S+) (%S+)\n(.*)$')
  ended_at = tonumber(ended_at)
  if ended_at + kept.keep_ms <= now_ms then
    return nil
  end
  return { state = state, ended_at = ended_at, rest = rest }
end

-- How a request ended, its record unread in `rest`, or nil. A submit knows whether it asks for a job.
function ended.get(id, is_job)
  if is_job ~= nil then
    return find(generations[is_job and 2 or 1], id)
  end
  return find(generations[1], id) or find(generations[2], id)
end

function ended.put(id, state, record, is_job)
  write(generations[is_job and 2 or 1].now, id, state .. ' ' .. now_text .. '\n' .. record)
end

-- Before anything is read: moves on to new generations.
function ended.turn()
  for _, kept in ipairs(generations) do
    local turned_at = tonumber(read(meta, kept.turned) or 0)
    if now_ms - turned_at >= kept.keep_ms then
      write(meta, kept.turned, now_ms)
      redis.call('UNLINK', kept.before.name)
      if redis.call('EXISTS', kept.now.name) == 1 then
        redis.call('RENAME', kept.now.name, kept.before.name)
      end
    end
  end
end

function ended.save()
  for _, kept in ipairs(generations) do
    flush(kept.now)
  end
end
