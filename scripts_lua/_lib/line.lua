-- _lib/line: the slots of a job that wait in line, each for the one before to end: under overlap buffer_one, buffer_all, cancel_other,
-- and under catch-up all.
--
--   open  hash  JOB -> ID of its unfinished task, and behind it the SLOTs in line, the oldest first, each after a byte 255; behind one that a
--               backfill has put there a b. '' -> nothing that anybody reads, see firing_hash
-- The task of a slot in line waits in no queue; it is put there when the job's unfinished task has ended, and its lease is gone.
-- needs: _lib/ledger

local backfilled  -- JOB \255 SLOT -> true: a backfill has put it in line; nil: nobody has seen one

-- The job's unfinished task, or nil; and the slots in line.
local function line_of(job)
  local text, slots = read(q.open, job), {}
  if not text then return nil, slots end
  local at = string.find(text, '\255', 1, true)
  if not at then return text, slots end
  local line = string.sub(text, at)
  for slot in string.gmatch(line, '\255(%d+)') do slots[#slots + 1] = slot end
  if string.find(line, 'b', 1, true) then
    backfilled = backfilled or {}
    for slot in string.gmatch(line, '\255(%d+)b') do backfilled[job .. '\255' .. slot] = true end
  end
  return string.sub(text, 1, at - 1), slots
end

-- Of these slots in line those that came due themselves. One of a backfill gives way to none of them, and takes nobody's room.
local function line_own(job, slots)
  if not backfilled then return slots end
  local own = {}
  for _, slot in ipairs(slots) do
    if not backfilled[job .. '\255' .. slot] then own[#own + 1] = slot end
  end
  return own
end

-- From here on `id` is the job's unfinished task.
local function line_lead(job, id, slots)
  local words = slots
  if backfilled then
    words = {}
    for at, slot in ipairs(slots) do words[at] = backfilled[job .. '\255' .. slot] and slot .. 'b' or slot end
  end
  write(q.open, job, #slots == 0 and id or id .. '\255' .. table.concat(words, '\255'))
end

local function line_has(job, slot)
  local _, slots = line_of(job)
  for _, waits in ipairs(slots) do
    if tonumber(waits) == slot then return true end
  end
  return false
end

-- One more waits, behind all others. `past`: a backfill has fired it.
local function line_join(job, slot, past)
  local open, slots = line_of(job)
  slots[#slots + 1] = int(slot)
  if past then
    backfilled = backfilled or {}
    backfilled[job .. '\255' .. int(slot)] = true
  end
  line_lead(job, open, slots)
end

-- This task of the job has ended. If it was the unfinished one, the first in line takes its place, and goes to its queue.
local function line_leave(job, id)
  if read(q.open, job) == id then return erase(q.open, job) end  -- nobody waits in line
  local open, slots = line_of(job)
  if open ~= id then
    for at, slot in ipairs(slots) do
      if slot_id(job, slot) == id then
        table.remove(slots, at)
        return line_lead(job, open, slots)
      end
    end
    return
  end
  while slots[1] do
    local following = slot_id(job, table.remove(slots, 1))
    local record = task_read(following)
    if record and record.state == 'waiting' then
      record_turn(record)
      line_lead(job, following, slots)
      return task_queue(following, record, record.due)
    end
  end
  erase(q.open, job)
end
