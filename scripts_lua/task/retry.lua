-- task/retry: let each dead task be tried again, for some more attempts.
--
-- KEYS[1..24] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  call          id      of this call; the same again is the same call, repeated
-- ARGV[3]  attempts      int     how many more; 0: as many as it had, counted anew
-- ARGV[4]  delay_ms      int     nobody may claim it before
-- Batch: ARGV[1..4] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE     it waits again, by this call
--          NO       it is not dead
--          UNKNOWN  no such task
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local out = each(4, function(i)
  local id, call, more = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local record, told, said = task_read(id), task_told(id), RESULT.UNKNOWN
  counter_read(q.counter)
  if record then
    said = task_answered(id, call) or RESULT.NO
    if said == RESULT.NO and told and told.state == 'dead' then
      redis.call('ZREM', q.dead, task_dead_member(id, record, told.ended))
      redis.call('ZREM', q.ended, id)
      if more == 0 then record.attempts = 0 else record.max = record.attempts + more end
      record.text = record.max .. ' ' .. record.json
      task_queue(id, record, now + tonumber(ARGV[i + 3]))
      task_tell(id, 'waiting', call, RESULT.DONE, nil, nil, told.failure)
      if record.job then task_reopen(id, record) end
      tally('redriven')
      said = RESULT.DONE
    end
  elseif redis.call('HEXISTS', q.ledger.ledger, id) == 1 then
    said = RESULT.NO
  end
  return said
end)
return out
