-- task/complete: end each task whose attempt succeeded, if the attempt is still the newest.
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
-- Batch: ARGV[1..3] repeat, one group a call, at most 64 a run.
--
-- Returns  1  ended by this attempt, now or by this same call before
--          0  not this attempt's to end: taken over, swept or cancelled
--
-- Accepted after the lease expired while nobody took it over: the work was done, and doing it again would be worse.
-- include: _lib/lease _lib/waiting _lib/ledger _lib/task

local out = {}
for i = 1, #ARGV, 3 do
  local id, owner, fence = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local lease, ended = lease_read(q.leases, id), 0
  local record = lease and lease.owner == owner and lease.fence == fence and task_read(id)
  if record then
    task_unlock(record, lease)
    lease_drop(q.leases, id, lease)
    task_end(id, record, 'done', owner, fence)
    ended = 1
  elseif not lease then
    local entry = redis.call('HGET', q.ledger.ledger, id)
    if entry and string.sub(entry, 1, 15) == '{"state":"done"' and string.find(entry, '"fence":' .. ARGV[i + 2] .. ',', 1, true) then ended = 1 end
  end
  out[#out + 1] = ended
end
task_finish()
return out
