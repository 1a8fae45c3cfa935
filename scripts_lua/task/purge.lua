-- task/purge: forget each of these tasks that has ended.
--
-- KEYS[1..24] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  state         str     only in this one; empty: however it ended
-- Batch: ARGV[1..2] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE  forgotten
--          NO    it has not ended so
-- Under OOM: runs.
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local out = each(2, function(i)
  local told = task_told(ARGV[i])
  local ends = told and (ARGV[i + 1] == '' or ARGV[i + 1] == told.state) and redis.call('HEXISTS', q.leases.leases, ARGV[i]) == 0
    and redis.call('ZSCORE', q.ended, ARGV[i])
  if ends then task_forget(ARGV[i]) end
  return ends and RESULT.DONE or RESULT.NO
end)
return out
