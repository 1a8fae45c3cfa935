-- task/release: give each attempt back that was not begun, or was cut short by a shutdown, so that others go on at once.
--
-- KEYS[1]  task          hash    the tasks, see _lib/task
-- KEYS[2]  task:attempt  hash
-- KEYS[3]  task:ready    zset
-- KEYS[4]  task:delayed  zset
-- KEYS[5]  task:lease    hash    their leases, see _lib/lease
-- KEYS[6]  task:live     zset
-- KEYS[7]  task:owned    zset
-- KEYS[8]  job:open      hash
-- KEYS[9]  ledger        hash    what became of each slot, see _lib/ledger
-- KEYS[10] ledger:order  zset
-- KEYS[11] fence         string  the last fence of this shard
-- KEYS[12] lock          hash    a running job's lock is one of these
-- KEYS[13] lock:live     zset
-- KEYS[14] lock:owned    zset
-- KEYS[15] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[16] lock:waiters  hash
-- KEYS[17] bell          channel  rung when a task can be claimed
-- ARGV[1]  id            str
-- ARGV[2]  owner         str
-- ARGV[3]  fence         int
-- ARGV[4]  begun         int     0: its body never ran, the attempt does not count
-- ARGV[5]  delay_ms      int     nobody may claim it before
-- Batch: ARGV[1..5] repeat, one group a call.
--
-- Returns  2  it waits in its queue again
--          1  it has failed, its attempts are used up
--          0  not this attempt's to give back
--
-- With max_attempts 1 a body that began is not begun again, whatever ends it.
-- include: _lib/lease _lib/waiting _lib/ledger _lib/task

local out = {}
for i = 1, #ARGV, 5 do
  local id, owner, fence, due = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), now + tonumber(ARGV[i + 4])
  local lease, said = lease_read(q.leases, id), 0
  if lease and lease.owner == owner and lease.fence == fence then
    local record = cjson.decode(redis.call('HGET', q.records, id))
    task_unlock(record, lease)
    lease_drop(q.leases, id, lease)
    if ARGV[i + 3] == '0' then
      redis.call('HSET', q.attempts, id, (task_attempts(id) - 1) .. ' 0')
      task_queue(id, record, due)
      said = 2
    else
      local reason = {state = 'failed', by = owner, fence = ARGV[i + 2], reason = 'cut short: the instance was shut down'}
      said = task_failed(id, record, reason, due) and 2 or 1
    end
  end
  out[#out + 1] = said
end
task_announce()
return out
