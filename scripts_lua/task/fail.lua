-- task/fail: end each attempt that failed: the task is tried again by its policy, or has failed.
--
-- KEYS[1..24] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  owner         str
-- ARGV[3]  fence         int
-- ARGV[4]  error         str     for the ledger
-- ARGV[5]  failure       json    type, message and traceback, for the outcome
-- ARGV[6]  retry_at      int     ms; -1: by the task's policy
-- ARGV[7]  call          id      of this call; the same again is the same call, repeated
-- Batch: ARGV[1..7] repeat, one group a call, at most 64 a run.
--
-- Returns  retry_at_ms  it is tried again then
--          DEAD         its attempts are used up
--          CANCELLED    a retry would come too late
--          NOT_YOURS
-- Under OOM: runs.
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local out = each(7, function(i)
  local id, owner, fence, retry_at, call = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 5]), ARGV[i + 6]
  local lease, said = lease_read(q.leases, id), RESULT.NOT_YOURS
  if lease and lease.owner == owner and lease.fence == fence then
    local record = lease.freed ~= 'cancelled' and task_read(id)
    counter_read(q.counter)  -- or it loses its lease, and does not get back into its queue
    task_leave(id, lease)
    if record then
      local more = '"failure":' .. ARGV[i + 4]
      said = task_failed(id, record, 'failed', lease, ARGV[i + 3], retry_at >= 0 and retry_at or nil, more, call)
    end
  else
    said = task_answered(id, call) or RESULT.NOT_YOURS
  end
  return said
end)
return out
