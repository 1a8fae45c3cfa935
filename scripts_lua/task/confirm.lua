-- task/confirm: let each task go on that was spawned with a delay until its durability was known; or withdraw it.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  call          id      that spawned it
-- ARGV[3]  delay_ms      int     from its spawn on, as its caller wanted it; -1: withdraw it
-- Batch: ARGV[1..3] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE
--          TOO_LATE  it was claimed or confirmed, is another call's to withdraw, or is no longer there
-- Under OOM: runs.
-- include: _lib/ending

gather(q.tasks, column(3, 1))
return each(3, function(i)
  local id, delay = ARGV[i], tonumber(ARGV[i + 2])
  local record = task_read(id)
  counter_read(q.fence)
  local unconfirmed = record and record.state == 'waiting' and policies(id, record).unconfirmed
  if not unconfirmed or (delay < 0 and unconfirmed ~= ARGV[i + 1]) then return RESULT.TOO_LATE end
  task_unqueue(id, record)
  if delay < 0 then
    task_until(id, record, 0)
    task_forget(id, record)
  else
    record.json = string.gsub(record.json, ',"unconfirmed":"[^"]*"', '', 1)
    task_queue(id, record, record.spawned + delay)
  end
  return RESULT.DONE
end)
