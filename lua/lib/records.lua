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
local bodies, lengths = cached(key.bodies), cached(key.lengths)
local live, changed_requests = {}, {}
-- Its submit says so itself: its owner is told of admissions by others only.
local submitting

local function some(word)
  return word ~= '.' and word or nil
end

-- A request from its first line. It has all fields from the start: a table that grows is made anew.
function requests.parse(id, text)
  local queue, cost, control_point, labels, pool, owner, timeout_ms, max_inflight_ms, job, rates =
    text:match('^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)')
  return {
    id = id, text = text, queue = queue, cost = tonumber(cost), control_point = control_point, labels = some(labels),
    pool = some(pool), owner = some(owner), timeout_ms = tonumber(timeout_ms),
    max_inflight_ms = tonumber(max_inflight_ms), job = job == '1', rates = some(rates),
    sequence = false, created_at = false, deadline = false, admitted_at = nil, end_by = nil, state = false,
    stored_in = false, changed = false, is_over = false, token = nil,
  }
end

local function decode(id, stored, is_held)
  local line_end = stored:find('\n', 1, true)
  local sequence, created_at, admitted_at, rest = stored:match('^(%S+) (%S+) (%S+)\n?(.*)$', line_end + 1)
  local request = requests.parse(id, stored:sub(1, line_end - 1))
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
  request.stored_in = is_held and 'held' or 'requests'
  return request
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

-- The live request, or nil.
function requests.load(id)
  if live[id] == nil then
    requests.fetch({ id })
  end
  return live[id] or nil
end

local function mark_changed(request)
  if not request.changed then
    request.changed = true
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

-- Writes the records that changed, each to the hash of its state, in the order of the changes.
function requests.flush()
  local sets, removals = { held = {}, requests = {} }, { held = {}, requests = {} }
  for _, request in ipairs(changed_requests) do
    local id, hash = request.id, nil
    if not request.is_over then
      hash = request.state == 'waiting' and 'requests' or 'held'
      local list = sets[hash]
      list[#list + 1] = id
      list[#list + 1] = encode(request)
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
local function nothing()
end
function requests.rates(request)
  return request.rates and request.rates:gmatch('([^;,]+);([^;,]+)') or nothing
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
