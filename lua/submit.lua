--[[
submit: requests arrive. Rejects each at once, or queues it, and admits what may go.

KEYS, ARGV: see lib/step.lua.
args: id_age_ms (an unknown id older than this is not new), body_limit (bytes of all bodies),
  waiting_limit, held_limit (requests that wait, that hold slots); items, each a list of id, id_time
  (ms, when the id was made), version (of the policies the schedule was computed with), length_limit and
  workload_length_limit (requests that may wait at its control point, in its workload; -1 for no
  limit), refusing (those of its limiters that refuse who finds them full, with commas between), text
  (the first line of its record, see lib/records.lua), and words of that line: queue_length
  (characters of its queue), cost, timeout_ms, max_inflight_ms, job, pool, owner, rates, affinity.
From ARGV[4] on: for each item what the replica is sent, '' for nothing.
result: for each item {status: 'accepted', state, position, ahead, estimated_start_ms}, {status:
  'known', state} for a repeat, {status: 'stale_version', version}, or {status: 'rejected', reason:
  'queue_full' | 'queue_timeout' | 'stale_id' | 'rate_limited' | 'over_capacity', retry_after_ms, limiter}
  (for 'queue_full' what is full: 'waiting' | 'held' | 'queued_bytes' | 'control_point' | 'workload').
  A request that is rejected has used nothing.
Safe to repeat: a live or remembered id is only reported; an id that is older than records are kept
is refused, so a late repeat never runs twice.
]]
-- use step limiters buckets tree shares standing capacity ended records dead requests admit estimate close

local version = tonumber(read(meta, 'version') or 0)

local function reject(reason, retry_after_ms, limiter)
  return { status = 'rejected', reason = reason, retry_after_ms = retry_after_ms, limiter = limiter }
end

-- Whether the rate limits and quotas it needs can pay, in an answer of reject, or nil when they can.
local function check_buckets(request)
  local retry_after_ms, by = 0, nil
  for name, tokens in requests.rates(request) do
    local limiter = limiters.get(name)
    if limiter.bucket then
      local ms = buckets.ms_until(limiter, tonumber(tokens))
      if not ms then
        return reject('over_capacity', nil, name)
      elseif ms > retry_after_ms then
        retry_after_ms, by = ms, name
      end
    end
  end
  if by then
    return reject('rate_limited', retry_after_ms, by)
  end
  for _, limiter in ipairs(limiters.of(tree.path(request.queue))) do
    if limiter.bucket and request.cost > limiter.bucket.capacity then
      return reject('over_capacity', nil, limiter.name)
    end
  end
  return nil
end

-- For a limit that lets nobody wait and has no unit left, an answer of reject.
local function check_refusing(request, refusing)
  for name in refusing:gmatch('[^,]+') do
    if not limiters.is_open(name) then
      return reject('rate_limited', estimate.wait_ms(request.queue, request.cost, 1, 1), name)
    end
  end
  return nil
end

-- Where nobody may wait, one that can go at once is welcome.
local function over(limit, length, request)
  return limit >= 0 and length >= limit and (limit > 0 or not may_pass(request))
end

-- The limit that leaves no room for it, or nil.
local function full(request, body, length_limit, workload_length_limit)
  if tree.node(ROOT).waiting >= args.waiting_limit then
    return 'waiting'
  elseif tree.node(ROOT).held >= args.held_limit then
    return 'held'
  elseif #body > 0 and tonumber(read(meta, 'body_bytes') or 0) + #body > args.body_limit then
    return 'queued_bytes'
  elseif length_limit >= 0 and over(length_limit, requests.length(requests.control_point(request)), request) then
    return 'control_point'
  elseif workload_length_limit >= 0
    and over(workload_length_limit, tree.node(tree.path(request.queue).workload).waiting, request) then
    return 'workload'
  end
  return nil
end

local ADMITTED = { status = 'accepted', state = 'admitted' }

local function submit(item, request, body)
  local id, id_time, version_used, length_limit, workload_length_limit, refusing = unpack(item, 1, 6)
  local live = requests.load(id)
  if live then
    return { status = 'known', state = live.state }
  end
  local past = ended.get(id)
  if past then
    return { status = 'known', state = past.state }
  end
  if id_time < now_ms - args.id_age_ms then
    return reject('stale_id')
  end
  if version_used ~= version then
    return { status = 'stale_version', version = version }
  end
  if request.timeout_ms <= 0 then
    return reject('queue_timeout', 1000)
  end
  local queue = tree.fold(request.queue)
  if queue ~= request.queue then
    requests.set_queue(request, queue)
  end
  local full_limit = full(request, body, length_limit, workload_length_limit)
  if full_limit then
    return reject('queue_full', estimate.wait_ms(queue, request.cost, 1, 1), full_limit)
  end
  local refusal = check_refusing(request, refusing) or check_buckets(request)
  if refusal then
    return refusal
  end

  request.sequence = next_sequence()
  request.created_at, request.deadline = now_text, now_ms + request.timeout_ms
  requests.keep_body(request, body)
  if request.rates then
    requests.charge_rates(request, 1)
  end
  submitting = request
  arrive(request)
  submitting = nil
  if request.state == 'admitted' then
    if request.owner and not request.pool then
      -- Its caller hears of it in the answer to this.
      requests.disown(request)
    end
    return ADMITTED
  end
  local position, ahead = standing.position(request), estimate.ahead(queue)
  return {
    status = 'accepted', state = request.state, position = position, ahead = ahead,
    estimated_start_ms = estimate.wait_ms(queue, request.cost, position, ahead),
  }
end

local list, ids, job_ids, queues, paths_used, names = {}, {}, {}, {}, {}, {}
for i, item in ipairs(args.items) do
  local id = item[1]
  local request = requests.new(id, unpack(item, 7))
  list[i], ids[i], queues[i] = request, id, request.queue
  if request.job then
    job_ids[#job_ids + 1] = id
  end
  local path = tree.path(request.queue)
  paths_used[i] = path
  for _, name in ipairs(path.limiters) do
    names[#names + 1] = name
  end
  for name in requests.rates(request) do
    names[#names + 1] = name
  end
end
requests.fetch(ids)
ended.fetch(ids, false)
ended.fetch(job_ids, true)
limiters.fetch(names)
buckets.fetch(names)
tree.fetch(paths_used)
standing.fetch(queues)

local results = {}
for i, item in ipairs(args.items) do
  results[i] = submit(item, list[i], ARGV[FIRST_BYTES + i - 1] or '')
end
return close(results)
