-- task/purge: forget each of these tasks that has ended.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  state         str     only in this one; empty: however it ended
-- Batch: ARGV[1..2] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE  forgotten
--          NO    it has not ended so
-- Under OOM: runs.
-- include: _lib/ending

gather(q.tasks, column(2, 1))
return each(2, function(i)
  local id, state = ARGV[i], ARGV[i + 1]
  local record = task_read(id)
  local ended = record and (record.state == 'done' or record.state == 'dead' or record.state == 'cancelled')
  if not ended or (state ~= '' and state ~= record.state) or not read(q.ended, id) then return RESULT.NO end
  if job_of(id) then slot_retire(id, record) else task_forget(id, record) end
  return RESULT.DONE
end)
