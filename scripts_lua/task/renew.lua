-- task/renew: set the time left of each attempt anew, and of the job lock that goes with it; an expired one is never revived.
--
-- KEYS[1]  task          hash    the tasks, see _lib/task
-- KEYS[2]  task:ready    zset
-- KEYS[3]  task:delayed  zset
-- KEYS[4]  task:lease    hash    their leases, see _lib/lease
-- KEYS[5]  task:live     zset
-- KEYS[6]  task:owned    zset
-- KEYS[7]  job:open      hash
-- KEYS[8]  ledger        hash    what became of each slot, see _lib/ledger
-- KEYS[9]  ledger:order  zset
-- KEYS[10] fence         string  the last fence of this shard
-- KEYS[11] lock          hash    a running job's lock is one of these
-- KEYS[12] lock:owned    zset
-- KEYS[13] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[14] lock:waiters  hash
-- KEYS[15] bell          channel  rung when a task can be claimed
-- ARGV[1]  id            str
-- ARGV[2]  owner         str
-- ARGV[3]  fence         int
-- ARGV[4]  lease_ms      int
-- ARGV[5]  lock          str     the job's lock; empty: it has none
-- Batch: ARGV[1..5] repeat, one group a call, at most 128 a run.
--
-- Returns  expires_at_ms  renewed
--          0              no longer this owner's
-- include: _lib/lease _lib/waiting _lib/ledger _lib/task

local out = {}
for i = 1, #ARGV, 5 do
  local id, owner, fence, lock = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 4]
  local lease, expires = lease_read(q.leases, id), 0
  if lease and lease.live and lease.owner == owner and lease.fence == fence then
    local held = lock ~= '' and lease_read(q.locks, lock) or nil
    if lock == '' or (held and held.live and held.owner == owner and held.token == lease.token) then
      expires = now + tonumber(ARGV[i + 3])
      lease.expires = expires
      lease_put(q.leases, id, lease)
      if held then
        held.expires = expires
        lease_put(q.locks, lock, held)
        locked = math.max(locked, expires)
      end
    end
  end
  out[#out + 1] = expires
end
task_finish()
return out
