-- task/await: ask to be told when each task ends.
--
-- KEYS[1..23] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  channel       str     "ended ID" is published there, once
-- Batch: ARGV[1..2] repeat, one group a call, at most 64 a run.
--
-- Returns  1   it will be told
--          0   it has ended
--          -1  no such task
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local out = each(2, function(i)
  local id, said = ARGV[i], 0
  local told = task_told(id)
  if redis.call('HEXISTS', q.records, id) == 0 then
    said = redis.call('HEXISTS', q.ledger.ledger, id) - 1
  elseif not told or told.state == 'waiting' then
    redis.call('ZADD', q.awaited, 0, id .. '\255' .. ARGV[i + 1])
    said = 1
  end
  return said
end)
return out
