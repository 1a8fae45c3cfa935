-- task/retry: let each dead task, or one that was cancelled, be tried again, for some more attempts.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28] job           hash    job -> "REV JSON"
-- ARGV[1]  id            str
-- ARGV[2]  call          id      of this call; the same again is the same call, repeated
-- ARGV[3]  attempts      int     how many more; 0: as many as it had, counted anew
-- ARGV[4]  delay_ms      int     nobody may claim it before
-- ARGV[5]  by            str     who wants that
-- ARGV[6]  cancelled     int     1: also if it was cancelled
-- Batch: ARGV[1..6] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE     it waits again, by this call
--          NO       it has not ended so, its job was deleted, or only the ledger still knows of it
--          BUSY     it was cancelled, and its body has yet to stop
--          UNKNOWN  no such task
--          CALLED   of a slot that is called: no worker would begin it, and no call comes for that slot again
-- include: _lib/ending

local defs = page(KEYS[28])

-- Whether its job is one whose slots are called. A quote in what users wrote is escaped, so that none of their words is found.
local function is_called(id)
  local job = job_of(id)
  return job and string.find(read(defs, job) or '', '"type":"called"', 1, true)
end

gather(q.tasks, column(6, 1))
return each(6, function(i)
  local id, call, more = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local record, said = task_read(id), reply_of(q.replies, call)
  if said then return tonumber(said) end
  counter_read(q.fence)
  if not record then return RESULT.UNKNOWN end
  local dead = record.state == 'dead'
  if not dead and ARGV[i + 5] == '0' then return RESULT.NO end
  if record.state == 'stopping' then return RESULT.BUSY end
  local cancelled = record.state == 'cancelled' and record.code ~= REASON.JOB_DELETED
  if not (dead or cancelled) or record.json == '' then return RESULT.NO end
  if is_called(id) then return RESULT.CALLED end
  if more == 0 then record.attempts = 0 else record.max = record.attempts + more end
  task_reopen(id, record, now + tonumber(ARGV[i + 3]), (string.gsub(ARGV[i + 4], '[\28-\31]', ' ')))
  write(q.replies, call, int(RESULT.DONE))
  return RESULT.DONE
end)
