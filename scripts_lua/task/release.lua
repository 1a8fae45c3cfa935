-- task/release: give each attempt back that was not begun, or was cut short by a shutdown, so that others go on at once.
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
-- ARGV[4]  begun         int     0: its body never ran, the attempt does not count
-- ARGV[5]  delay_ms      int     nobody may claim it before
-- Batch: ARGV[1..5] repeat, one group a call, at most 64 a run.
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
  local record = lease and lease.owner == owner and lease.fence == fence and task_read(id)
  if record then
    task_unlock(record, lease)
    lease_drop(q.leases, id, lease)
    if ARGV[i + 3] == '0' then
      record.attempts, record.started = record.attempts - 1, 0
      task_write(id, record)
      task_queue(id, record, due)
      if record.job then ledger_replace(q.ledger, id, ledger_entry('fired', record.fired)) end
      said = 2
    else
      said = task_failed(id, record, 'failed', lease, 'cut short: the instance was shut down', due) and 2 or 1
    end
  end
  out[#out + 1] = said
end
task_finish()
return out
