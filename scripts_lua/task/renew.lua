-- task/renew: set the time left of each attempt anew, and of the job lock that goes with it; an expired one is never revived.
--
-- KEYS[1..24] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  owner         str
-- ARGV[3]  fence         int
-- ARGV[4]  lease_ms      int
-- ARGV[5]  lock          str     the job's lock; empty: it has none
-- Batch: ARGV[1..5] repeat, one group a call, at most 128 a run.
--
-- Returns  expires_at_ms  renewed
--          EXPIRED        and perhaps taken back or ended since
--          CANCELLED      stop the body; its lease stays until it has stopped, so that no other attempt starts beside it
--          NOT_YOURS      another attempt's, or another owner's
-- Under OOM: runs.
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local out = each(5, function(i)
  local id, owner, fence, lock = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 4]
  local lease, said = lease_read(q.leases, id), RESULT.EXPIRED
  local mine = lease and lease.owner == owner and lease.fence == fence
  local limit = mine and tonumber(lease.freed)
  if limit and limit <= now then
    local record = task_read(id)
    if record then task_cancel(id, record, lease, task_limit(record)) end
    lease.freed = 'cancelled'
  end
  if lease and not mine then
    said = RESULT.NOT_YOURS
  elseif mine and lease.live then
    local held = lock ~= '' and lock_read(q.locks, lock) or nil
    if lock == '' or (held and held.live and held.owner == owner and held.calls == lease.token) then
      lease.expires = now + tonumber(ARGV[i + 3])
      lease_put(q.leases, id, lease)
      if held then
        held.expires, held.ttl = lease.expires, tonumber(ARGV[i + 3])
        lock_put(q.locks, lock, held)
      end
      said = lease.expires
    end
    if lease.freed == 'cancelled' then said = RESULT.CANCELLED end
  elseif mine and lease.freed == 'cancelled' then
    said = RESULT.CANCELLED
  elseif not lease then
    local told = task_told(id)
    if told and told.state == 'cancelled' then said = RESULT.CANCELLED end
  end
  return said
end)
return out
