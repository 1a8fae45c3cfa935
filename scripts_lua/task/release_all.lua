-- task/release_all: take back what an owner that is gone had claimed, up to `limit` at a time, as if its leases had expired.
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
-- ARGV[1]  owner         str
-- ARGV[2]  limit         int
--
-- Returns  {released, more}  more is 1 when some are left: ask again
--
-- O(owned), by the owner's own index.
-- include: _lib/lease _lib/waiting _lib/ledger _lib/task

local owner, limit = ARGV[1], tonumber(ARGV[2])
local members = redis.call('ZRANGEBYLEX', q.leases.owned, '[' .. owner .. '\255', '(' .. owner .. '\255\255', 'LIMIT', 0, limit)
local released = 0
for _, member in ipairs(members) do
  local id = string.sub(member, #owner + 2)
  local lease, record = lease_read(q.leases, id), task_read(id)
  if lease and record then
    task_unlock(record, lease)
    lease_drop(q.leases, id, lease)
    task_failed(id, record, 'lost', lease, 'all leases of its owner were released', now)
    if lease.live then released = released + 1 end
  else
    redis.call('ZREM', q.leases.owned, member)
  end
end
task_finish()
return {released, #members == limit and 1 or 0}
