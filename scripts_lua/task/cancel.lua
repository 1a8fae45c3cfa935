-- task/cancel: end each task that has not ended. A running one is refused its next renewal, and its worker told at once.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  call          id      of this call; the same again is the same call, repeated
-- ARGV[3]  by            str     who wants that
-- Batch: ARGV[1..3] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE      cancelled by this call
--          FINISHED  it had ended
--          UNKNOWN   no such task
-- Under OOM: runs.
-- include: _lib/ending

gather(q.tasks, column(3, 1))
return each(3, function(i)
  local id, call, by = ARGV[i], ARGV[i + 1], string.gsub(ARGV[i + 2], '[\28-\31]', ' ')
  local record, said = task_read(id), reply_of(q.replies, call)
  if said then return tonumber(said) end
  if record and (record.state == 'waiting' or record.state == 'running') then
    task_cancel(id, record, REASON.CANCELLED, by)
    write(q.replies, call, int(RESULT.DONE))
    return RESULT.DONE
  end
  return record and RESULT.FINISHED or RESULT.UNKNOWN
end)
