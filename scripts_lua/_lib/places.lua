-- _lib/places: where a task stands: in its queue, among the dead, among those to be cancelled in time; and how it is forgotten.
--
-- Members of the indexes in lexical order have score 0 and fixed widths (2, 15, 16 digits): that order is the order wanted.
-- needs: _lib/record _lib/messages

local DEAD_MS = 7 * 86400 * 1000

-- What it is called among the ready, and among the delayed.
local function places_of(id, record)
  local said = policies(id, record)
  local priority, when = string.format('%02d', 50 - (said.priority or 0)), string.format('%015.0f', record.due)
  local seq = string.format('%016.0f', record.seq) .. id
  return said.queue .. '\255' .. priority .. when .. seq, said.queue .. '\255' .. when .. priority .. seq
end

-- Let a task be claimed from `due` on.
local function task_queue(id, record, due)
  record.state, record.due, record.seq = 'waiting', math.floor(due), mint(q.fence)
  local ready, delayed = places_of(id, record)
  if due <= now then enter(q.ready, ready, 0) else enter(q.delayed, delayed, 0) end
  say(q.bell, message_task())  -- whoever sleeps has to know of a later time as well
  task_write(id, record)
end

local function task_unqueue(id, record)
  if record.seq == 0 then return end
  local ready, delayed = places_of(id, record)
  leave(q.ready, ready)
  leave(q.delayed, delayed)
  record.seq = 0
end

local function task_until(id, record, till)
  if till > 0 then
    enter(q.untils, id, till)
  elseif record.till > 0 then
    leave(q.untils, id)
  end
  record.till = till
end

-- Spawned or begun before the clock was set back: its limit is as far from now as it was from then.
local function until_settle(id, record)
  local since = math.max(record.began, record.spawned)
  if since <= now + SET_BACK_MS then return end
  if record.till > 0 then task_until(id, record, now + math.max(record.till - since, 0)) end
  record.began, record.spawned = math.min(record.began, now), math.min(record.spawned, now)
  task_write(id, record)
end

local any_awaited

-- Tell who waits for the end of a task.
local function task_announce(id)
  if any_awaited == nil then any_awaited = redis.call('EXISTS', q.awaited[KEY]) == 1 end
  if not any_awaited then return end
  for _, member in ipairs(range(q.awaited, '[' .. id .. '\255', '(' .. id .. '\255\255', 1000)) do
    leave(q.awaited, member)
    say(string.sub(member, #id + 2), message_ended(id))
  end
end

-- Forget a task that has ended, and all that is known of it.
local function task_forget(id, record)
  if record and record.state == 'dead' and record.json ~= '' then leave(q.dead, dead_member(id, record)) end
  task_announce(id)
  erase(q.tasks, id)
  erase(q.params, id)
  erase(q.results, id)
  erase(q.failures, id)
  leave(q.ended, id)
end
