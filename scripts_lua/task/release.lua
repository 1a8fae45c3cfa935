-- task/release: give each attempt back that was not begun, or was cut short by a shutdown, so that others go on at once.
--
-- KEYS[1..24] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  owner         str
-- ARGV[3]  fence         int
-- ARGV[4]  begun         int     0: its body never ran, the attempt does not count
-- ARGV[5]  delay_ms      int     nobody may claim it before
-- ARGV[6]  call          id      of this call; the same again is the same call, repeated
-- Batch: ARGV[1..6] repeat, one group a call, at most 64 a run.
--
-- Returns  WAITING    it waits in its queue again
--          FINISHED   it has ended: its attempts are used up, or it could not go on in time
--          NOT_YOURS
--
-- With max_attempts 1 a body that began is not begun again, whatever ends it.
-- Under OOM: runs.
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local CUT = 'cut short: the instance was shut down'
local out = each(6, function(i)
  local id, owner, fence, due, call = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), now + tonumber(ARGV[i + 4]), ARGV[i + 5]
  local lease, said = lease_read(q.leases, id), RESULT.NOT_YOURS
  if lease and lease.owner == owner and lease.fence == fence then
    local record = lease.freed ~= 'cancelled' and task_read(id)
    counter_read(q.counter)  -- or it loses its lease, and does not get back into its queue
    task_leave(id, lease)
    if record and ARGV[i + 3] == '0' then
      record.attempts, record.started = record.attempts - 1, 0
      if ARGV[i + 4] == '0' then due = record.due end  -- it keeps its place
      if record.attempts == 0 then task_until(id, record, record.max_delay_ms and record.spawned + record.max_delay_ms or 0) end
      task_queue(id, record, due)
      if record.job then
        ledger_replace(q.ledger, id, ledger_entry('fired', record.spawned))
        task_tell_slot(id, 'waiting', call, due)
      else
        local told = task_told(id)
        task_tell(id, 'waiting', call, due, owner, fence, told and told.failure)
      end
      said = due
    elseif record then
      said = task_failed(id, record, 'failed', lease, CUT, due, failure('CutShort', CUT), call)
    end
  else
    said = task_answered(id, call) or RESULT.NOT_YOURS
  end
  return said > 0 and RESULT.WAITING or (said == RESULT.DEAD or said == RESULT.CANCELLED) and RESULT.FINISHED or said
end)
return out
