-- task/complete: end each task whose attempt succeeded, if the attempt is still the newest.
--
-- KEYS[1..24] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  owner         str
-- ARGV[3]  fence         int
-- ARGV[4]  result        json    kept as it is; empty: none
-- Batch: ARGV[1..4] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE       ended by this attempt, now or before
--          NOT_YOURS  taken over, swept or cancelled
--
-- Accepted after the lease expired while nobody took it over: the work was done, and doing it again would be worse.
-- Under OOM: runs.
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local out = each(4, function(i)
  local id, owner, fence, result = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local lease, ended = lease_read(q.leases, id), RESULT.NOT_YOURS
  if lease and lease.owner == owner and lease.fence == fence then
    local record = lease.freed ~= 'cancelled' and task_read(id)
    task_leave(id, lease)
    if record then
      if result ~= '' then redis.call('HSET', q.results, id, result) end
      task_end(id, record, 'done', owner, fence)
      ended = RESULT.DONE
    end
  elseif not lease and task_done_by(id, owner, fence) then
    ended = RESULT.DONE
  end
  return ended
end)
return out
