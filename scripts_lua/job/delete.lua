-- job/delete: forget a job, its slot and, up to `limit` entries at a time, its ledger, with the tasks of it that wait. One that runs goes on.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28] job        hash  job -> "REV JSON"
-- KEYS[29] job:order  zset
-- KEYS[30] job:slot   hash
-- KEYS[31] job:due    zset
-- KEYS[32] job:paused  hash
-- KEYS[33] job:changes  hash
-- ARGV[1]  job        str
-- ARGV[2]  limit      int
-- ARGV[3]  call       id    of this call; the same again is the same call, repeated
--
-- Returns  {existed, more}  more is 1 when ledger entries are left: ask again
-- Under OOM: runs.
-- include: _lib/ending _lib/pause

local job, limit = ARGV[1], tonumber(ARGV[2])
local s = schedule_of(KEYS[28], KEYS[29], KEYS[30], KEYS[31], {job})
local existed = read(s.defs, job)
erase(s.defs, job)
leave(s.order, job)
erase(s.slots, job)
leave(s.dues, job)
erase(q.counts, job)
pause_drop(page(KEYS[32]), page(KEYS[33]), job)
if existed then write(q.replies, ARGV[3], '1') end

local function withdraw(id)
  local record = task_read(id)
  if record and record.state == 'waiting' then
    task_unqueue(id, record)
    task_end(id, record, 'cancelled', REASON.JOB_DELETED)
  elseif record and record.state == 'running' then
    record_says(record, REASON.JOB_DELETED)
    task_write(id, record)
  end
end
local open, slots = line_of(job)
erase(q.open, job)  -- first, or whoever ends lets the next in line go
if open then withdraw(open) end
for _, slot in ipairs(slots) do withdraw(slot_id(job, slot)) end
local members = range(q.order, '[' .. job .. '\255', '(' .. job .. '\255\255', limit)
for _, id in ipairs(ledger_ids(job, members)) do withdraw(id) end
ledger_drop(job, members)
return {(existed or reply_of(q.replies, ARGV[3])) and 1 or 0, #members == limit and 1 or 0}
