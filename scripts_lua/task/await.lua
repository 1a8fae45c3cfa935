-- task/await: ask to be told when each task ends.
--
-- KEYS[1..24] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  channel       str     told once that it has ended, see _lib/messages
-- Batch: ARGV[1..2] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE      it will be told
--          FINISHED  it has ended
--          UNKNOWN   no such task
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local out = each(2, function(i)
  local id, said = ARGV[i], RESULT.FINISHED
  local told = task_told(id)
  if redis.call('HEXISTS', q.records, id) == 0 then
    if redis.call('HEXISTS', q.ledger.ledger, id) == 0 then said = RESULT.UNKNOWN end
  elseif not told or told.state == 'waiting' then
    redis.call('ZADD', q.awaited, 0, id .. '\255' .. ARGV[i + 1])
    said = RESULT.DONE
  end
  return said
end)
return out
