-- _lib/line: the tasks of a job that wait in line, each for the one before to end: slots under overlap buffer_one, buffer_all, cancel_other,
-- and under catch-up all; what a backfill has fired; and under any overlap what is to be tried again while another task of the job runs.
--
--   open  hash  JOB -> ID of its unfinished task, and behind it the SLOTs in line, each after a byte 255, the oldest first; behind one that
--               gives way to no slot a b; of a triggered run !ID, as its id ends. '' -> nothing that anybody reads, see firing_hash
-- Who leads has the job's lock, or is to have it next: so overlap decides over what runs. What is in line waits in no queue; it is put
-- there when the job's unfinished task has ended, and its lease is gone.
-- needs: _lib/ledger

local staying  -- JOB \255 SLOT -> true: it gives way to no slot; nil: nobody has seen one

local function line_id(job, word)
  return string.byte(word) == 33 and job .. word or slot_id(job, word)
end

-- The same as below, of a line in which some give way to none.
local function line_marked(job, line, words)
  staying = staying or {}
  for word in string.gmatch(line, '\255([^\255]+)') do
    local slot = string.match(word, '^%d+') or word
    words[#words + 1] = slot
    if slot ~= word or string.byte(word) == 33 then staying[job .. '\255' .. slot] = true end
  end
  return words
end

-- The job's unfinished task, or nil; and what is in line: slots, and !ID.
local function line_of(job)
  local text, slots = read(q.open, job), {}
  if not text then return nil, slots end
  local at = string.find(text, '\255', 1, true)
  if not at then return text, slots end
  local line = string.sub(text, at)
  if string.find(line, '[!b]') then return string.sub(text, 1, at - 1), line_marked(job, line, slots) end
  for slot in string.gmatch(line, '\255(%d+)') do slots[#slots + 1] = slot end
  return string.sub(text, 1, at - 1), slots
end

-- Of these in line the slots that came due themselves. The others give way to none of them, and take nobody's room.
local function line_own(job, slots)
  if not staying then return slots end
  local own = {}
  for _, slot in ipairs(slots) do
    if not staying[job .. '\255' .. slot] then own[#own + 1] = slot end
  end
  return own
end

-- From here on `id` is the job's unfinished task.
local function line_lead(job, id, slots)
  local words = slots
  if staying then
    words = {}
    for at, slot in ipairs(slots) do words[at] = staying[job .. '\255' .. slot] and string.byte(slot) ~= 33 and slot .. 'b' or slot end
  end
  write(q.open, job, #slots == 0 and id or id .. '\255' .. table.concat(words, '\255'))
end

local function line_has(job, id)
  local _, slots = line_of(job)
  for _, waits in ipairs(slots) do
    if line_id(job, waits) == id then return true end
  end
  return false
end

local function line_stays(job, word)
  staying = staying or {}
  staying[job .. '\255' .. word] = true
end

-- One more waits, behind all others. `past`: a backfill has fired it.
local function line_join(job, slot, past)
  local open, slots = line_of(job)
  slots[#slots + 1] = int(slot)
  if past then line_stays(job, int(slot)) end
  line_lead(job, open, slots)
end

-- A task of a queue waits in line from here on, before all that are of a later slot.
local function line_wait(job, id, record)
  local open, slots = line_of(job)
  local slot, at = select(2, job_of(id)), 1
  local word = slot and int(slot) or string.sub(id, #job + 1)
  while slots[at] and (string.byte(slots[at]) == 33 or slot and tonumber(slots[at]) < slot) do at = at + 1 end
  table.insert(slots, at, word)
  task_unqueue(id, record)
  if record_is_fresh(id, record) then record_says(record, REASON.BUFFERED) else line_stays(job, word) end
  task_write(id, record)
  line_lead(job, open, slots)
end

-- This task of the job has its lock, or is to have it next: it leads. Who led and has not begun is in line.
local function line_take(job, id)
  local open, slots = line_of(job)
  if open == id then return end
  line_lead(job, id, slots)
  local record = open and task_read(open)
  if record and record.state == 'waiting' then line_wait(job, open, record) end
end

-- This task of the job has ended. If it was the unfinished one, the first in line takes its place, and goes to its queue.
local function line_leave(job, id)
  if read(q.open, job) == id then return erase(q.open, job) end  -- nobody waits in line
  local open, slots = line_of(job)
  if open ~= id then
    for at, slot in ipairs(slots) do
      if line_id(job, slot) == id then
        table.remove(slots, at)
        return line_lead(job, open, slots)
      end
    end
    return
  end
  while slots[1] do
    local following = line_id(job, table.remove(slots, 1))
    local record = task_read(following)
    if record and record.state == 'waiting' then
      record_turn(record)
      line_lead(job, following, slots)
      return task_queue(following, record, record.due)
    end
  end
  erase(q.open, job)
end
