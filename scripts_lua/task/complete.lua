-- task/complete: end each task whose attempt succeeded, if the attempt is still the newest.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- ARGV[2]  owner         str
-- ARGV[3]  fence         int
-- ARGV[4]  result        json    kept as it is; empty: none
-- Batch: ARGV[1..4] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE       ended by this attempt, now or before
--          NOT_YOURS  taken over, swept or cancelled
--
-- Accepted after the lease expired while nobody took it over: the work was done, and doing it again would be worse.
-- Under OOM: runs.
-- Rarely: event_keep task_stopped task_forget attempt_hand_over line_lead ledger_odd ledger_until task_queue ledger_lacks counts_begin
-- Rarely: unreadable record_set_back line_marked
-- include: _lib/ending

ending_gather(column(4, 1))
return each(4, function(i)
  local id, owner, fence = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local record = task_read(id)
  if not record then return RESULT.NOT_YOURS end
  if not is_at(record, owner, fence) then
    local last = last_try(record)
    return record.state == 'done' and last.owner == owner and last.fence == fence and RESULT.DONE or RESULT.NOT_YOURS
  end
  task_leave(id, record)
  if record.state == 'stopping' then
    task_stopped(id, record)
    return RESULT.NOT_YOURS
  end
  if ARGV[i + 3] ~= '' then write(q.results, id, ARGV[i + 3]) end
  try_end(record, 'done')
  task_end(id, record, 'done')
  return RESULT.DONE
end)
