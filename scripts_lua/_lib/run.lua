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
-- needs: _lib/clock _lib/fence _lib/part

-- With room from the start: a table that grows is made anew at each doubling.
local parts, closes, messages = {nil, nil, nil, nil, nil, nil, nil, nil}, {nil, nil, nil, nil}, {}
-- What the attempt at hand has changed, to undo it: part, id, what was known of it (`unknown`: nothing), and the list of changes it stands in.
local unknown, depth, trying = {}, 0, false
local undo_part, undo_id, undo_known, undo_list = {nil, nil, nil, nil, nil, nil, nil, nil}, {nil, nil, nil, nil, nil, nil, nil, nil},
  {nil, nil, nil, nil, nil, nil, nil, nil}, {nil, nil, nil, nil, nil, nil, nil, nil}

-- Have `close(part)` called at the end of the run, before the pages and indexes are written.
local function join(part, close)
  closes[#closes + 1], closes[#closes + 2] = part, close
  return part
end

local function read(part, id)
  local value = part[id]
  if value == nil then
    if part[SCORED] then value = tonumber(redis.call('ZMSCORE', part[KEY], id)[1] or nil) or false else value = redis.call('HGET', part[KEY], id) end
    part[id] = value
  end
  return value or nil
end

local function gather(part, ids)
  if not ids[2] then return ids[1] and read(part, ids[1]) end
  local asked, most = {}, 0
  for i = 1, #ids do
    local id = ids[i]
    if part[id] == nil then
      most = most + 1
      asked[most] = id
    end
  end
  if most == 0 then return end
  local scored = part[SCORED]
  local got = scored and redis.call('ZMSCORE', part[KEY], unpack(asked)) or redis.call('HMGET', part[KEY], unpack(asked))
  for i = 1, most do
    local value = got[i]
    part[asked[i]] = scored and value and tonumber(value) or value
  end
end

-- Note that an id has changed. Returns the list that says so.
local function change(part, id)
  local changed = part[CHANGED]
  if changed then
    changed[#changed + 1] = id
  elseif changed == false then
    changed = {id}
    part[CHANGED], parts[#parts + 1] = changed, part
  end
  return changed
end

local function write(part, id, value)
  local at, known, changed = depth + 1, part[id], part[CHANGED]
  if changed then changed[#changed + 1] = id else changed = change(part, id) or false end
  if known == nil then known = unknown end  -- a list with holes is a slow one
  undo_part[at] = part
  undo_id[at] = id
  undo_known[at] = known
  undo_list[at] = changed
  part[id], depth = value, at
end

local function erase(part, id) write(part, id, false) end
local enter, leave = write, erase

-- Write what has changed of a part.
local function scatter(part)
  local key, changed, scored = part[KEY], part[CHANGED], part[SCORED]
  local most = changed and #changed or 0
  if most == 0 then return end
  part[CHANGED] = false
  if most == 1 then
    local id = changed[1]
    local value = part[id]
    if not value then
      if scored then redis.call('ZREM', key, id) else redis.call('HDEL', key, id) end
    elseif scored then
      redis.call('ZADD', key, value, id)
    else
      redis.call('HSET', key, id, value)
    end
    return
  end
  local put, at, left = {}, 0, 0
  for i = 1, most do
    local id = changed[i]
    local value = part[id]
    if not value then
      left = left + 1
      changed[left] = id  -- from here on the list of those to go
    elseif scored then
      put[at + 1], put[at + 2], at = value, id, at + 2
    else
      put[at + 1], put[at + 2], at = id, value, at + 2
    end
  end
  for i = 1, at, 2000 do  -- unpack takes some 8,000
    local last = math.min(i + 1999, at)
    if scored then redis.call('ZADD', key, unpack(put, i, last)) else redis.call('HSET', key, unpack(put, i, last)) end
  end
  for i = 1, left, 2000 do
    local last = math.min(i + 1999, left)
    if scored then redis.call('ZREM', key, unpack(changed, i, last)) else redis.call('HDEL', key, unpack(changed, i, last)) end
  end
end

local function range(part, low, high, most, skip)
  scatter(part)
  local found = redis.call('ZRANGEBYLEX', part[KEY], low, high, 'LIMIT', skip or 0, most)
  for _, member in ipairs(found) do part[member] = 0 end
  return found
end

local function due(part, until_ms, most, skip)
  scatter(part)
  local rows, found = redis.call('ZRANGEBYSCORE', part[KEY], '-inf', int(until_ms), 'WITHSCORES', 'LIMIT', skip or 0, most), {}
  for i = 1, #rows, 2 do
    found[#found + 1] = rows[i]
    part[rows[i]] = tonumber(rows[i + 1])
  end
  return found
end

-- A counter that can't be read stops nobody: it is left as it is, for whoever reads it to name.
local function count_close(part)
  for what, by in pairs(part) do
    if what ~= KEY and by and by ~= 0 then redis.pcall('HINCRBY', part[KEY], what, int(by)) end
  end
end

local function count(key)
  return join({key}, count_close)
end

local function tally(part, what, by)
  write(part, what, (part[what] or 0) + (by or 1))
end

local function say(channel, message)
  messages[#messages + 1], messages[#messages + 2] = channel, message
end

-- What `call` returns, the second value as the third; or nil, and which entry it could not read: then it has changed nothing.
local function attempt_undone(call, ...)
  local mark, said_before, outermost = depth, #messages, not trying
  trying = true
  local said, problem, more = attempt_bare(call, ...)
  if problem then
    while depth > mark do
      local part, id, old, list = undo_part[depth], undo_id[depth], undo_known[depth], undo_list[depth]
      if old == unknown then old = nil end
      if list and list ~= part[CHANGED] then  -- it was written meanwhile
        old = old or false
        change(part, id)
      elseif list then
        list[#list] = nil
      end
      part[id], depth = old, depth - 1
    end
    for i = #messages, said_before + 1, -1 do messages[i] = nil end
  end
  if outermost then trying, depth = false, mark end  -- it stands, so a long run keeps no more than the longest of its calls
  return said, problem, more
end
attempt = attempt_undone  -- which `answer` and `each` of _lib/clock go by

-- Every `width`th argument from the `nth` on: a column of the batch, to gather by.
local function column(width, nth)
  local out = {}
  for i = nth, #ARGV, width do out[#out + 1] = ARGV[i] end
  return out
end

local function finish()
  counter_write()
  for i = #closes, 1, -2 do closes[i](closes[i - 1]) end  -- what is made of others before them
  for _, part in ipairs(parts) do scatter(part) end
  local said = messages[1] and {}
  for i = 1, #messages, 2 do
    local channel, text = messages[i], messages[i + 1]
    if not said[channel .. '\255' .. text] then
      said[channel .. '\255' .. text] = true
      redis.call('PUBLISH', channel, text)
    end
  end
end
