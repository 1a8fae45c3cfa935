-- task/cancel: end each task that has not ended. A running one is refused its next renewal, and its worker told at once.
--
-- KEYS[1..24] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  call          id      of this call; the same again is the same call, repeated
-- Batch: ARGV[1..2] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE      cancelled by this call
--          FINISHED  it had ended
--          UNKNOWN   no such task
-- Under OOM: runs.
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local out = each(2, function(i)
  local id, call = ARGV[i], ARGV[i + 1]
  local record, said = task_read(id), task_answered(id, call)
  if not said and record then
    local lease = lease_read(q.leases, id)
    said = RESULT.FINISHED
    if record.seq > 0 or (lease and lease.freed ~= 'cancelled') then
      task_cancel(id, record, lease, 'it was cancelled', call)
      said = RESULT.DONE
    end
  end
  return said or redis.call('HEXISTS', q.ledger.ledger, id) == 1 and RESULT.FINISHED or RESULT.UNKNOWN
end)
return out
