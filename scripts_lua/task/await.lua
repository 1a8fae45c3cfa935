-- task/await: ask to be told when each task ends.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  channel       str     told once that it has ended, see _lib/messages
-- Batch: ARGV[1..2] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE      it will be told
--          FINISHED  it has ended
--          UNKNOWN   no such task
-- include: _lib/record _lib/results

gather(q.tasks, column(2, 1))
return each(2, function(i)
  local id = ARGV[i]
  local record = task_read(id)
  if not record then return RESULT.UNKNOWN end
  if record.state ~= 'waiting' and record.state ~= 'running' then return RESULT.FINISHED end
  enter(q.awaited, id .. '\255' .. ARGV[i + 1], 0)
  return RESULT.DONE
end)
