-- How requests ended, so that a repeat is known and a job can be fetched. Kept in two generations:
-- a sweep begins a new one when the last is as old as records are kept, and drops the one before, so
-- nothing has to be removed one by one. Kept as 'state ended_at', then the record as it was, and what
-- else there is to say in JSON: a line each.

local ended = {}
-- private
local others, jobs, past_of = { turned = 'ended_turned' }, { turned = 'jobs_turned' }, nil
local generations = { others, jobs }
at_start(function()
  others.now, others.before, others.keep_ms = key.ended, key.ended_before, settings.keep_ms
  jobs.now, jobs.before, jobs.keep_ms = key.jobs_ended, key.jobs_ended_before, settings.keep_job_ms
  others.sets, jobs.sets, past_of = fresh(others.sets), fresh(jobs.sets), fresh(past_of)
end)

-- How long what remains of a request is kept, ms.
function ended.keep_ms(request)
  return request.job and settings.keep_job_ms or settings.keep_ms
end

local function parse_past(stored, keep_ms)
  local state, ended_at, rest = stored:match('^(%S+) (%S+)\n(.*)$')
  ended_at = tonumber(ended_at)
  return ended_at + keep_ms > now_ms and { state = state, ended_at = ended_at, rest = rest } or false
end

-- Reads many at once; those of jobs are elsewhere than others.
function ended.fetch(ids, are_jobs)
  local kept = are_jobs and jobs or others
  local now, before = read_many(kept.now, ids), read_many(kept.before, ids)
  for i, id in ipairs(ids) do
    local stored = now[i] or before[i]
    past_of[id] = stored and parse_past(stored, kept.keep_ms)
  end
end

-- How a request ended, its record unread in `rest`, or nil.
function ended.get(id)
  local past = past_of[id]
  if past == nil then
    ended.fetch({ id }, false)
    past = past_of[id]
    if not past then
      ended.fetch({ id }, true)
      past = past_of[id]
    end
  end
  return past or nil
end

function ended.put(id, state, record, is_job)
  local sets = (is_job and jobs or others).sets
  sets[#sets + 1] = id
  sets[#sets + 1] = state .. ' ' .. now_text .. '\n' .. record
  past_of[id] = { state = state, ended_at = now_ms, rest = record }
end

-- Before anything is read: moves on to new generations.
function ended.turn()
  for _, kept in ipairs(generations) do
    local turned_at = tonumber(read(meta, kept.turned) or 0)
    if now_ms - turned_at >= kept.keep_ms then
      write(meta, kept.turned, now_ms)
      redis.call('UNLINK', kept.before)
      if redis.call('EXISTS', kept.now) == 1 then
        redis.call('RENAME', kept.now, kept.before)
      end
    end
  end
end

function ended.save()
  for _, kept in ipairs(generations) do
    call_with('HSET', kept.now, kept.sets)
  end
end
