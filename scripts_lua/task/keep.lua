-- task/keep: renew whatever a call had claimed, or fired and started, while the reply to it is on its way.
--
-- KEYS[1..23] of _lib/task
-- ARGV[1]  owner         str
-- ARGV[2]  call          id      of the claim or the firing
-- ARGV[3]  lease_ms      int     for tasks that do not say theirs
-- Batch: ARGV[1..3] repeat, one group a call, at most 8 a run.
--
-- Returns  expires_at_ms  of what it has claimed, if anything: never refused, for it may be executed only after this
--
-- The reply may lie unread in the socket of a program whose event loop is blocked; the keeper, who asks this, is a thread of its own.
-- Under OOM: runs.
-- include: _lib/lease _lib/waiting _lib/ledger _lib/task

local out = {}
for i = 1, #ARGV, 3 do
  local owner, call, lease_ms = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  for _, id in ipairs(lease_owned(q.leases, owner, 1000)) do
    local lease = lease_read(q.leases, id)
    if lease and lease.live and lease.token == call and lease.owner == owner and lease.freed ~= 'cancelled' then
      local record = task_read(id)
      lease.expires = now + (record and record.lease_ms or lease_ms)
      lease_put(q.leases, id, lease)
      local lock = record and record.job and lease_read(q.locks, 'job:' .. record.job)
      if lock and lock.live and lock.owner == owner and lock.token == call then
        lock.expires = lease.expires
        lease_put(q.locks, 'job:' .. record.job, lock)
        locked = math.max(locked, lock.expires)
      end
    end
  end
  out[#out + 1] = now + lease_ms
end
task_finish()
return out
