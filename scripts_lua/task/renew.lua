-- task/renew: set the time left of each attempt anew; an expired one is never revived.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  owner         str
-- ARGV[3]  fence         int
-- ARGV[4]  lease_ms      int
-- ARGV[5]  lock          str     the job's lock, under which it is leased; empty: it is leased as a task
-- Batch: ARGV[1..5] repeat, one group a call, at most 128 a run.
--
-- Returns  expires_at_ms  renewed
--          EXPIRED        and perhaps taken back or ended since
--          CANCELLED      stop the body; its lease stays until it has stopped, so that no other attempt starts beside it
--          NOT_YOURS      another attempt's, or another owner's
-- Under OOM: runs.
-- Rarely: task_cancel record_set_back unreadable
-- include: _lib/ending

local ids, keys, alone, locks = column(5, 1), column(5, 5), {}, {}
for at, key in ipairs(keys) do
  if key == '' then alone[#alone + 1] = ids[at] else locks[#locks + 1] = key end
end
gather(q.tasks, ids)
lease_gather(q.leases, alone)
lease_gather(q.locks, locks)

return each(5, function(i)
  local id, owner, fence, lock = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 4]
  local t, key = q.leases, id
  if lock ~= '' then t, key = q.locks, lock end
  local lease, record = lease_read(t, key), task_read(id)
  if not lease or (lock ~= '' and lease_task(key, lease) ~= id) then
    return record and (record.state == 'cancelled' or record.state == 'stopping') and RESULT.CANCELLED or RESULT.EXPIRED
  end
  if lease.owner ~= owner or lease.fence ~= fence then return RESULT.NOT_YOURS end
  if record and record.state == 'running' and record.till > 0 and record.till <= now then
    task_cancel(id, record, task_limit(record))
  end
  local stop = record and record.state == 'stopping'
  if lease.live then
    lease_renew(t, key, lease, tonumber(ARGV[i + 3]))
    if lock ~= '' then lease_outlive(t, now + KEPT_MS) end
    return stop and RESULT.CANCELLED or lease.expires
  end
  return stop and RESULT.CANCELLED or RESULT.EXPIRED
end)
