-- _lib/run: one run of a script as a unit of work. It gathers what its calls ask for, lets each call decide over what was
-- gathered, and scatters what they changed: one read and one write a structure, however many calls share the run.
--
-- A page is a hash, an index a sorted set, a count a hash of counters, as this run sees them and will leave them. The calls of a
-- run see each other's changes. The server sees them when `finish` writes them, which the loader appends to the script.
--
--   local tasks, ready, stats = page(KEYS[1]), index(KEYS[2]), count(KEYS[3])
--   gather(tasks, ids)                     one HMGET (ZMSCORE of an index), at most some thousand ids
--   read(tasks, id)                        its value (the score, of an index), or nil; read from the server if it was not gathered
--   write(tasks, id, text)  erase(tasks, id)
--   enter(ready, member, score)  leave(ready, member)
--   range(ready, low, high, most, skip)    members in lexical order, after what is pending on the index was written
--   due(live, until_ms, most, skip)        members by score, likewise
--   tally(stats, 'done')                   at the end: HINCRBY
--   say(channel, message)                  at the end, in order; the same message once
--   gather(tasks, column(4, 1))            of each group of four arguments the first
--   return each(4, function(i) ... end)    one reply a group of ARGV
--
-- A call that meets what can't be read has changed nothing: `attempt` undoes what it wrote, entered, counted and said.
-- needs: _lib/clock _lib/fence

local parts, closed_first, messages = {}, {}, {}
local undo, depth = {}, 0  -- four entries a change: part, id, what was seen of it, whether that was a change

-- Have `part.close` called at the end of the run, before the pages and indexes are written.
local function join(part)
  part.seen, part.changed = part.seen or {}, part.changed or {}
  closed_first[#closed_first + 1] = part
  return part
end

local function page(key) return {key = key, seen = {}} end
local function index(key) return {key = key, seen = {}, scored = true} end

-- seen[id]: what stands there, false: nothing, nil: not known yet.
local function gather(part, ids)
  local asked, most, seen, scored = {}, 0, part.seen, part.scored
  for i = 1, #ids do
    local id = ids[i]
    if seen[id] == nil then
      most = most + 1
      asked[most], seen[id] = id, false
    end
  end
  if most == 0 then return end
  local got = scored and redis.call('ZMSCORE', part.key, unpack(asked)) or redis.call('HMGET', part.key, unpack(asked))
  for i = 1, most do
    local value = got[i]
    seen[asked[i]] = scored and value and tonumber(value) or value
  end
end

local function read(part, id)
  local value = part.seen[id]
  if value == nil then
    gather(part, {id})
    value = part.seen[id]
  end
  return value or nil
end

local function write(part, id, value)
  local changed = part.changed
  if not changed then
    changed = {}
    part.changed, parts[#parts + 1] = changed, part
  end
  local seen, at = part.seen, depth
  undo[at + 1], undo[at + 2], undo[at + 3], undo[at + 4] = part, id, seen[id], changed[id]
  depth = at + 4
  seen[id], changed[id] = value, true
end

local function erase(part, id) write(part, id, false) end
local enter, leave = write, erase

-- Write what has changed of a part. What is undone later is written back, unless it is the `last` time.
local function scatter(part, last)
  if not part.changed or not next(part.changed) then return end
  local seen, put, drop, at, left = part.seen, {}, {}, 0, 0
  for id in pairs(part.changed) do
    local value = seen[id]
    if not value then
      left = left + 1
      drop[left] = id
    elseif part.scored then
      put[at + 1], put[at + 2], at = value, id, at + 2
    else
      put[at + 1], put[at + 2], at = id, value, at + 2
    end
  end
  for i = 1, at, 2000 do  -- unpack takes some 8,000
    if part.scored then
      redis.call('ZADD', part.key, unpack(put, i, math.min(i + 1999, at)))
    else
      redis.call('HSET', part.key, unpack(put, i, math.min(i + 1999, at)))
    end
  end
  for i = 1, left, 2000 do
    if part.scored then
      redis.call('ZREM', part.key, unpack(drop, i, math.min(i + 1999, left)))
    else
      redis.call('HDEL', part.key, unpack(drop, i, math.min(i + 1999, left)))
    end
  end
  if last then return end
  part.written = part.written or {}
  for id in pairs(part.changed) do part.written[id] = true end
  part.changed = {}
end

local function range(part, low, high, most, skip)
  scatter(part)
  local found = redis.call('ZRANGEBYLEX', part.key, low, high, 'LIMIT', skip or 0, most)
  for _, member in ipairs(found) do part.seen[member] = 0 end
  return found
end

local function due(part, until_ms, most, skip)
  scatter(part)
  local rows, found = redis.call('ZRANGEBYSCORE', part.key, '-inf', int(until_ms), 'WITHSCORES', 'LIMIT', skip or 0, most), {}
  for i = 1, #rows, 2 do
    found[#found + 1] = rows[i]
    part.seen[rows[i]] = tonumber(rows[i + 1])
  end
  return found
end

-- A counter that can't be read stops nobody: it is left as it is, for whoever reads it to name.
local function count(key)
  return join({key = key, close = function(part)
    for what, by in pairs(part.seen) do
      if by and by ~= 0 then redis.pcall('HINCRBY', key, what, int(by)) end
    end
  end})
end

local function tally(part, what, by)
  write(part, what, (part.seen[what] or 0) + (by or 1))
end

local function say(channel, message)
  messages[#messages + 1] = {channel, message}
end

-- What `call` returns, the second value as the third; or nil, and which entry it could not read: then it has changed nothing.
-- `answer` and `each` of _lib/clock go by this one from here on.
local attempt_bare = attempt
attempt = function(call, ...)
  local mark, said_before = depth, #messages
  local said, problem, more = attempt_bare(call, ...)
  if problem then
    while depth > mark do
      local part, id = undo[depth - 3], undo[depth - 2]
      part.seen[id], part.changed[id] = undo[depth - 1], undo[depth]
      if part.written and part.written[id] then  -- it stands there by now
        part.seen[id], part.changed[id] = part.seen[id] or false, true
      end
      depth = depth - 4
    end
    for i = #messages, said_before + 1, -1 do messages[i] = nil end
  end
  return said, problem, more
end

-- Every `width`th argument from the `nth` on: a column of the batch, to gather by.
local function column(width, nth)
  local out = {}
  for i = nth, #ARGV, width do out[#out + 1] = ARGV[i] end
  return out
end

local function finish()
  counter_write()
  for i = #closed_first, 1, -1 do closed_first[i].close(closed_first[i]) end  -- what is made of others before them
  for _, part in ipairs(parts) do scatter(part, true) end
  local said = {}
  for _, message in ipairs(messages) do
    local channel, text = message[1], message[2]
    if not said[channel .. '\255' .. text] then
      said[channel .. '\255' .. text] = true
      redis.call('PUBLISH', channel, text)
    end
  end
end
