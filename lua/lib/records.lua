-- What is kept of a request. A record is lines of text:
--   queue cost timeout_ms max_inflight_ms owner control_point labels   as submitted; of a prompt, a job
--     or one with rate limits followed by job pool rates affinity
--   sequence created_at, and once it is admitted admitted_at
--   {JSON}: what prompts, requests with a body and flows with heartbeats have besides, as far as it is set
-- '.' stands for none. Which hash it is in and whether it has a token tell its state.
local requests = {}
local live, bodies
local mark_changed, save, encode, count_waiting, set_timer
-- Its submit says so itself: its owner is told of admissions by others only.
local submitting
-- private
local MORE_FIELDS = {
  'bytes', 'attempt', 'failures', 'story', 'deferred', 'has_waited', 'began', 'lease_until', 'started_at', 'worker', 'token', 'replica',
  'cancelled', 'cancel_code',
}
local lengths, changed_requests
at_start(function()
  live, bodies = fresh(live), cached(bodies, key.bodies)
  lengths, changed_requests = cached(lengths, key.lengths), fresh(changed_requests)
  submitting = nil
end)

local function some(word)
  return word ~= '.' and word or nil
end

-- All fields from the start: a table that grows is made anew.
local function new_request(id, queue, cost, timeout_ms, max_inflight_ms, is_job, pool, owner, rates, affinity)
  return {
    id = id, queue = queue, cost = cost, timeout_ms = timeout_ms, max_inflight_ms = max_inflight_ms, job = is_job,
    pool = pool, owner = owner, rates = rates, affinity = affinity, text = false, sequence = false,
    created_at = false, deadline = false, admitted_at = nil, end_by = nil, state = 'waiting', stored = false, stored_in = false, changed = false,
    is_over = false, token = nil,
  }
end

-- A request as it arrives: `text` is the first line of its record.
function requests.new(id, text, queue_length, cost, timeout_ms, max_inflight_ms, is_job, pool, owner, rates, affinity)
  local request = new_request(id, text:sub(1, queue_length), cost, timeout_ms, max_inflight_ms, is_job == 1,
    some(pool), some(owner), some(rates), some(affinity))
  request.text = text
  return request
end

local function decode(id, stored, is_held)
  local queue, cost, timeout_ms, max_inflight_ms, owner, more, sequence, created_at, admitted_at, rest =
    stored:match('^(%S+) (%S+) (%S+) (%S+) (%S+) %S+ %S+ ?([^\n]*)\n(%S+) (%d+) ?(%d*)\n?(.*)$')
  local job, pool, rates, affinity = '0', '.', '.', ''
  if more ~= '' then
    job, pool, rates, affinity = more:match('^(%S+) (%S+) (%S+) ?(%S*)$')
  end
  local request = new_request(id, queue, tonumber(cost), tonumber(timeout_ms), tonumber(max_inflight_ms), job == '1',
    some(pool), some(owner), some(rates), affinity ~= '' and some(affinity) or nil)
  request.stored, request.stored_in = stored, is_held and 'held' or 'requests'
  request.sequence, request.created_at = tonumber(sequence), created_at
  if rest ~= '' then
    for field, value in pairs(cjson.decode(rest)) do
      request[field] = value
    end
  end
  if is_held then
    request.admitted_at = admitted_at
    request.end_by = admitted_at + request.max_inflight_ms
    request.state = request.token and 'running' or 'admitted'
  else
    request.deadline = created_at + request.timeout_ms
  end
  return request
end

-- The first line of its record.
local function text_of(request)
  request.text = request.text or request.stored:match('^[^\n]*')
  return request.text
end

local function words_of(request)
  return text_of(request):match('^%S+ %S+ %S+ %S+ %S+ (%S+) (%S+)')
end

function requests.control_point(request)
  return (words_of(request))
end

function requests.labels(request)
  local _, labels = words_of(request)
  return some(labels)
end

-- Reads many at once.
function requests.fetch(ids)
  local held, waiting = read_many(key.held, ids), read_many(key.requests, ids)
  for i, id in ipairs(ids) do
    if live[id] == nil then
      local stored = held[i] or waiting[i]
      live[id] = stored and decode(id, stored, held[i] and true or false)
    end
  end
end

-- One that is known to wait.
function requests.load_waiting(id)
  if not live[id] then
    live[id] = decode(id, redis.call('HGET', key.requests, id), false)
  end
  return live[id]
end

-- The deadline of one that is known to wait.
function requests.deadline(id)
  if live[id] then
    return live[id].deadline
  end
  local timeout_ms, created_at = redis.call('HGET', key.requests, id):match('^%S+ %S+ (%S+) [^\n]*\n%S+ (%d+)')
  return created_at + timeout_ms
end

-- The live request, or nil.
function requests.load(id)
  if live[id] == nil then
    requests.fetch({ id })
  end
  return live[id] or nil
end

function mark_changed(request)
  if not request.changed then
    request.changed = true
    changed_requests[#changed_requests + 1] = request
  end
end

function save(request)
  live[request.id] = request
  mark_changed(request)
end
requests.save = save

-- Its gateway is gone, or has done its part: nobody is told of it any more, also of its end, and it does
-- not end with its gateway.
function requests.disown(request)
  request.text = text_of(request):gsub('^(%S+ %S+ %S+ %S+) %S+', '%1 .', 1)
  request.owner = nil
  save(request)
end

function encode(request)
  local record = text_of(request) .. '\n' .. whole(request.sequence) .. ' ' .. request.created_at
  if request.admitted_at then
    record = record .. ' ' .. request.admitted_at
  end
  if request.pool or request.bytes or request.lease_until then
    local rest = {}
    for _, field in ipairs(MORE_FIELDS) do
      rest[field] = request[field]
    end
    if next(rest) then
      record = record .. '\n' .. cjson.encode(rest)
    end
  end
  return record
end

-- Writes the records that changed, each to the hash of its state, in the order of the changes.
function requests.flush()
  if not changed_requests[1] then
    return
  end
  local sets, removals = { held = {}, requests = {} }, { held = {}, requests = {} }
  for _, request in ipairs(changed_requests) do
    local id, hash = request.id, nil
    if not request.is_over then
      hash = request.state == 'waiting' and 'requests' or 'held'
      local list = sets[hash]
      list[#list + 1] = id
      request.stored = encode(request)
      list[#list + 1] = request.stored
    end
    if request.stored_in and request.stored_in ~= hash then
      local list = removals[request.stored_in]
      list[#list + 1] = id
    end
  end
  for hash in pairs(sets) do
    flush_lists(key[hash], sets[hash], removals[hash])
  end
  flush(bodies)
  flush(lengths)
end

function requests.set_timer(request, at_ms)
  set_score(timers, request.id, at_ms)
end
set_timer = requests.set_timer

function requests.keep_body(request, body)
  if #body > 0 then
    request.bytes = #body
    write(bodies, request.id, body)
    write(meta, 'body_bytes', tonumber(read(meta, 'body_bytes') or 0) + #body)
  end
end

function requests.body(request)
  return read(bodies, request.id) or ''
end

-- Requests that wait at a control point.
function requests.length(control_point)
  return tonumber(read(lengths, control_point) or 0)
end

function count_waiting(request, by)
  local control_point = requests.control_point(request)
  local length = requests.length(control_point) + by
  write(lengths, control_point, length > 0 and whole(length))
end

-- The rate limits of a request and what it draws from each: 'limiter;tokens,...'.
local function nothing()
end
function requests.rates(request)
  return request.rates and request.rates:gmatch('([^;,]+);([^;,]+)') or nothing
end

-- What became of its attempts: of those that came to nothing the last few.
local STORY_LENGTH = 16
-- `failed_there`: that replica could not serve it; else it would not have been another's.
function requests.tell(request, code, message, failed_there)
  local story = request.story or {}
  story[#story + 1] = {
    attempt = request.attempt, replica = request.replica, worker = request.worker, at = now_ms, code = code,
    message = message, failed_there = failed_there or nil,
  }
  if #story > STORY_LENGTH then
    table.remove(story, 1)
  end
  request.story = story
end

-- How a request ended, for people.
function requests.past(past)
  local request = decode('', past.rest:match('^[^\n]*\n[^\n]*'), false)
  local admitted_at = past.rest:match('^[^\n]*\n%S+ %S+ (%d+)')
  local result = {
    state = past.state, ended_at = past.ended_at, kind = request.pool and 'prompt' or 'flow',
    control_point = requests.control_point(request), labels = requests.labels(request),
    created_at = tonumber(request.created_at),
    admitted_at = tonumber(admitted_at),
  }
  for json in past.rest:gmatch('\n({[^\n]*})') do
    local fields = cjson.decode(json)
    result.attempt = fields.attempt or result.attempt
    result.started_at = fields.started_at or result.started_at
    result.code, result.message = fields.code or result.code, fields.message or result.message
  end
  return result
end

function requests.set_queue(request, queue)
  request.text = queue .. text_of(request):sub(#request.queue + 1)
  request.queue = queue
end
