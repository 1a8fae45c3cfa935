-- task/fail: end each attempt that failed: the task is tried again by its policy, or has failed.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  owner         str
-- ARGV[3]  fence         int
-- ARGV[4]  error         str     for the list of its attempts
-- ARGV[5]  failure       json    type, message and traceback
-- ARGV[6]  retry_at      int     ms; -1: by the task's policy
-- ARGV[7]  call          id      of this call; the same again is the same call, repeated
-- Batch: ARGV[1..7] repeat, one group a call, at most 64 a run.
--
-- Returns  retry_at_ms  it is tried again then
--          DEAD         its attempts are used up
--          CANCELLED    a retry would come too late
--          NOT_YOURS
-- Under OOM: runs.
-- Rarely: attempt_hand_over task_end task_stopped record_set_back unreadable
-- include: _lib/ending

ending_gather(column(7, 1))
return each(7, function(i)
  local id, owner, fence, retry_at, call = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 5]), ARGV[i + 6]
  local record = task_read(id)
  if not record or not is_at(record, owner, fence) then return tonumber(reply_of(q.replies, call)) or RESULT.NOT_YOURS end
  counter_read(q.fence)  -- or it loses its lease, and does not get back into its queue
  if record.state == 'stopping' then
    task_leave(id, record)
    task_stopped(id, record)
    return RESULT.NOT_YOURS
  end
  write(q.failures, id, ARGV[i + 4])
  local said = task_failed(id, record, 'failed', nil, ARGV[i + 3], retry_at >= 0 and retry_at or nil)
  write(q.replies, call, int(said))
  return said
end)
