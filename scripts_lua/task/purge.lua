-- task/purge: forget each of these tasks that has ended.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  state         str     only in this one; empty: however it ended
-- ARGV[3]  call          id      of this call; the same again is the same call, repeated
-- Batch: ARGV[1..3] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE  forgotten
--          NO    it has not ended so
-- Under OOM: runs.
-- include: _lib/ending

gather(q.tasks, column(3, 1))
return each(3, function(i)
  local id, state, call = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local record = task_read(id)
  local ended = record and (record.state == 'done' or record.state == 'dead' or record.state == 'cancelled')
  if not ended then return tonumber(reply_of(q.replies, call)) or RESULT.NO end
  if (state ~= '' and state ~= record.state) or not read(q.ended, id) then return RESULT.NO end
  if job_of(id) then slot_retire(id, record) else task_forget(id, record) end
  write(q.replies, call, int(RESULT.DONE))
  return RESULT.DONE
end)
