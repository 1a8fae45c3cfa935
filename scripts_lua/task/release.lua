-- task/release: give each attempt back that was not begun, or was cut short by a shutdown, so that others go on at once.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  owner         str
-- ARGV[3]  fence         int
-- ARGV[4]  begun         int     0: its body never ran, the attempt does not count
-- ARGV[5]  delay_ms      int     nobody may claim it before
-- ARGV[6]  call          id      of this call; the same again is the same call, repeated
-- Batch: ARGV[1..6] repeat, one group a call, at most 64 a run.
--
-- Returns  WAITING    it waits in its queue again
--          FINISHED   it has ended: its attempts are used up, or it could not go on in time
--          NOT_YOURS
--
-- With max_attempts 1 a body that began is not begun again, whatever ends it.
-- Under OOM: runs.
-- Rarely: task_failed task_stopped attempt_hand_over record_set_back unreadable
-- include: _lib/ending

ending_gather(column(6, 1))
return each(6, function(i)
  local id, owner, fence, delay, call = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 4]), ARGV[i + 5]
  local record = task_read(id)
  if not record or not is_at(record, owner, fence) then return tonumber(reply_of(q.replies, call)) or RESULT.NOT_YOURS end
  counter_read(q.fence)  -- or it loses its lease, and does not get back into its queue
  if record.state == 'stopping' then
    task_leave(id, record)
    task_stopped(id, record)
    return RESULT.NOT_YOURS
  end
  local said = RESULT.WAITING
  if ARGV[i + 3] == '0' then
    task_leave(id, record)
    task_undo(id, record)
    task_queue(id, record, delay == 0 and record.due or now + delay)  -- it keeps its place
  elseif task_failed(id, record, 'cut', REASON.SHUTDOWN, nil, now + delay) < 0 then
    said = RESULT.FINISHED
  end
  write(q.replies, call, int(said))
  return said
end)
