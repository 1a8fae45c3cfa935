-- task/cancel: end each task that has not ended. A running one is refused its next renewal, and its worker told at once.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  call          id      of this call; the same again is the same call, repeated
-- Batch: ARGV[1..2] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE      cancelled by this call
--          FINISHED  it had ended
--          UNKNOWN   no such task
-- Under OOM: runs.
-- include: _lib/ending

gather(q.tasks, column(2, 1))
return each(2, function(i)
  local id, call = ARGV[i], ARGV[i + 1]
  local record, said = task_read(id), reply_of(q.replies, call)
  if said then return tonumber(said) end
  if record and (record.state == 'waiting' or record.state == 'running') then
    task_cancel(id, record, REASON.CANCELLED)
    write(q.replies, call, int(RESULT.DONE))
    return RESULT.DONE
  end
  return record and RESULT.FINISHED or RESULT.UNKNOWN
end)
