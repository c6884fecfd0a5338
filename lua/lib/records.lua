-- What is kept of a request. A record is lines of text:
--   queue cost control_point labels pool owner timeout_ms max_inflight_ms job rates   as submitted
--   sequence created_at admitted_at
--   {JSON}: what prompts have besides, as far as it is set
-- '.' stands for none. Which hash it is in and whether it has a token tell its state.
local PROMPT_FIELDS = {
  'bytes', 'attempt', 'failures', 'failed_on', 'began', 'lease_until', 'started_at', 'worker', 'token', 'replica',
  'cancelled', 'cancel_code',
}

local requests = {}
local waiting_hash, held_hash, bodies = cached(key.requests), cached(key.held), cached(key.bodies)
local lengths = cached(key.lengths)
local live, changed_requests, is_changed = {}, {}, {}
-- Its submit says so itself: its owner is told of admissions by others only.
local submitting

local function some(word)
  return word ~= '.' and word or nil
end

-- A request from its first line.
function requests.parse(id, text)
  local queue, cost, control_point, labels, pool, owner, timeout_ms, max_inflight_ms, job, rates =
    text:match('^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)')
  return {
    id = id, text = text, queue = queue, cost = tonumber(cost), control_point = control_point, labels = some(labels),
    pool = some(pool), owner = some(owner), timeout_ms = tonumber(timeout_ms),
    max_inflight_ms = tonumber(max_inflight_ms), job = job == '1', rates = some(rates),
  }
end

local function decode(id, stored, is_held)
  local text, sequence, created_at, admitted_at, rest = stored:match('^([^\n]*)\n(%S+) (%S+) (%S+)\n?(.*)$')
  local request = requests.parse(id, text)
  request.sequence, request.created_at = tonumber(sequence), created_at
  request.deadline = created_at + request.timeout_ms
  request.state = 'waiting'
  if rest ~= '' then
    for field, value in pairs(cjson.decode(rest)) do
      request[field] = value
    end
  end
  if is_held then
    request.admitted_at = admitted_at
    request.end_by = admitted_at + request.max_inflight_ms
    request.state = request.token and 'running' or 'admitted'
  end
  request.stored_in = is_held and held_hash or waiting_hash
  return request
end

-- The live request, or nil.
function requests.load(id)
  local request = live[id]
  if request == nil then
    local stored = read(held_hash, id)
    local is_held = stored and true or false
    stored = stored or read(waiting_hash, id)
    request = stored and decode(id, stored, is_held) or false
    live[id] = request
  end
  return request or nil
end

function requests.fetch(ids)
  fetch(held_hash, ids)
  fetch(waiting_hash, ids)
end

local function mark_changed(request)
  if not is_changed[request] then
    is_changed[request] = true
    changed_requests[#changed_requests + 1] = request
  end
end

local function save(request)
  live[request.id] = request
  mark_changed(request)
end
requests.save = save

local function encode(request)
  local record = request.text .. '\n' .. request.sequence .. ' ' .. request.created_at .. ' '
    .. (request.admitted_at or '.')
  if request.pool then
    local rest = {}
    for _, field in ipairs(PROMPT_FIELDS) do
      rest[field] = request[field]
    end
    if next(rest) then
      record = record .. '\n' .. cjson.encode(rest)
    end
  end
  return record
end

-- Writes the records that changed, each to the hash of its state.
function requests.flush()
  for _, request in ipairs(changed_requests) do
    local id = request.id
    local hash = not request.is_over and (request.state == 'waiting' and waiting_hash or held_hash) or nil
    if request.stored_in and request.stored_in ~= hash then
      write(request.stored_in, id, false)
    end
    if hash then
      write(hash, id, encode(request))
    end
    request.stored_in = hash
  end
  changed_requests, is_changed = {}, {}
  flush(waiting_hash)
  flush(held_hash)
  flush(bodies)
  flush(lengths)
end

function requests.set_timer(request, at_ms)
  set_score(timers, request.id, at_ms)
end
local set_timer = requests.set_timer

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

local function count_waiting(request, by)
  local length = requests.length(request.control_point) + by
  write(lengths, request.control_point, length > 0 and length or false)
end

-- The rate limits of a request and what it draws from each: 'limiter;tokens,...'.
function requests.rates(request)
  return (request.rates or ''):gmatch('([^;,]+);([^;,]+)')
end

-- How a request ended, for people.
function requests.past(past)
  local _, _, text, _, created_at, admitted_at = past.rest:find('^([^\n]*)\n(%S+) (%S+) (%S+)')
  local request = requests.parse('', text)
  local result = {
    state = past.state, ended_at = past.ended_at, kind = request.pool and 'prompt' or 'flow',
    control_point = request.control_point, created_at = tonumber(created_at), admitted_at = tonumber(admitted_at),
  }
  for json in past.rest:gmatch('\n({[^\n]*})') do
    local fields = cjson.decode(json)
    result.attempt = fields.attempt or result.attempt
    result.started_at = fields.started_at or result.started_at
    result.code, result.message = fields.code or result.code, fields.message or result.message
  end
  return result
end

local function set_queue(request, queue)
  request.text = queue .. request.text:sub(#request.queue + 1)
  request.queue = queue
end
requests.set_queue = set_queue
