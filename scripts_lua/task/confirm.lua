-- task/confirm: let each task go on that was spawned with a delay until its durability was known; or withdraw it.
--
-- KEYS[1..24] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  call          id      that spawned it
-- ARGV[3]  delay_ms      int     from its spawn on, as its caller wanted it; -1: withdraw it
-- Batch: ARGV[1..3] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE
--          TOO_LATE  it was claimed or confirmed, is another call's to withdraw, or is no longer there
-- Under OOM: runs.
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local out = each(3, function(i)
  local id, delay = ARGV[i], tonumber(ARGV[i + 2])
  local record, said = task_read(id), RESULT.TOO_LATE
  counter_read(q.counter)
  if record and record.held and record.seq > 0 and (delay >= 0 or record.call == ARGV[i + 1]) then
    task_unqueue(id, record)
    if delay < 0 then
      task_until(id, record, 0)
      task_forget(id)
    else
      record.text = string.gsub(record.text, ',"held":true', '', 1)
      task_queue(id, record, record.spawned + delay)
    end
    said = RESULT.DONE
  end
  return said
end)
return out
