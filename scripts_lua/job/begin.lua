-- job/begin: begin the attempt of a job's slot for whoever calls for it, once for the slot. Its slots are fired by nobody else.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28] job        hash    job -> "REV JSON"
-- KEYS[29] epoch      string  when this shard was first written to
-- KEYS[30] job:paused   hash  see _lib/pause
-- KEYS[31] job:changes  hash
-- ARGV[1]  job        str
-- ARGV[2]  rev        str   of the definition that the rest was reckoned by
-- ARGV[3]  slot       int   ms; -1: this moment
-- ARGV[4]  newest     int   ms; the newest slot in its ledger when the caller looked; -1: none
-- ARGV[5]  first      int   ms; the first slot since that nobody called for
-- ARGV[6]  last       int   ms; the last of those
-- ARGV[7]  count      int   how many; 0: none; -1: too many to count
-- ARGV[8]  least_ms   int   of slot -1: not sooner than this after the newest slot
-- ARGV[9]  skips      int   1: a slot that meets an unfinished task is skipped; 0: it is left to another call
-- ARGV[10] record     text  of the task: "MAX JSON"
-- ARGV[11] keep       str   how its ledger keeps, see _lib/ledger
-- ARGV[12] owner      str
-- ARGV[13] call       id    of this call; the same again is the same call, repeated
-- ARGV[14] lease_ms   int
--
-- Returns  {said, fence, expires_at_ms, now_ms, of}
--          said STARTED: run it, as the task `of`; FINISHED: the slot was begun, skipped or missed before, as `of`; NO: it has not come, or it
--          is too soon after `of`; BUSY: the task `of` has not ended, or the owner `of` holds the job's lock; PAUSED: by `of`; LOST: it came before the store
--          was first written to; EXPIRED: this call had begun it, and its lease ran out; TOO_LATE: look again; UNKNOWN: no such job
--
-- An emptied store knows of no slot that ran: what came before its epoch may have, and is missed.
-- include: _lib/calling _lib/pause

task_sweep(20, false, {ids = {}, count = 0})  -- or it would be busy by a task whose caller is dead

return answer(function()
  local job, slot, keep, owner, call = ARGV[1], tonumber(ARGV[3]), ARGV[11], ARGV[12], ARGV[13]
  local told = calling_told(call, owner)
  if told then return told end
  local definition = read(page(KEYS[28]), job)
  if not definition then return {RESULT.UNKNOWN, 0, 0, now, ''} end
  if string.match(definition, '^%S+') ~= ARGV[2] then return {RESULT.TOO_LATE, 0, 0, now, ''} end
  local newest, anytime = calling_newest(job), slot < 0
  if anytime then
    if newest >= 0 and now < newest + tonumber(ARGV[8]) then return {RESULT.NO, 0, 0, now, slot_id(job, newest)} end
    slot = math.max(now, newest + 1)
  elseif slot > now then
    return {RESULT.NO, 0, 0, now, ''}
  end
  local id = slot_id(job, slot)
  local record = task_read(id)
  local again = record and record.state == 'waiting'  -- somebody retries it
  if not again then
    if record or newest >= slot then return {RESULT.FINISHED, 0, 0, now, id} end
    if not anytime and newest ~= tonumber(ARGV[4]) then return {RESULT.TOO_LATE, 0, 0, now, ''} end
  end

  counter_read(q.fence)  -- nothing is entered unless a fence can be minted
  if not again and not anytime and slot * 1000 < (tonumber(redis.call('GET', KEYS[29]) or '0') or 0) then
    ledger_missed(job, slot, slot, 1, REASON.EMPTIED, '', keep)
    return calling_say(call, RESULT.LOST, id)
  end
  if not record then
    record = record_new(ARGV[10], slot)
    record_stamp(record, 0, keep)
  end
  local code, detail, said = REASON.PAUSED, calling_paused(page(KEYS[30]), page(KEYS[31]), job), RESULT.PAUSED
  if not detail then
    code, detail = calling_overlap(job, id, owner)
    said = RESULT.BUSY
  end
  local lease
  if not code then
    lease, detail = calling_start(id, record, owner, call, tonumber(ARGV[14]), again)
    code = not lease and REASON.LOCK_HELD
  end
  if code and (again or anytime or said == RESULT.BUSY and ARGV[9] ~= '1') then return {said, 0, 0, now, detail} end
  if not again and tonumber(ARGV[7]) ~= 0 then
    ledger_missed(job, tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), REASON.NOT_CALLED, '', keep)
  end
  if code then
    firing_skipped(job, slot, code, detail, keep)
    return calling_say(call, said, detail)
  end
  line_take(job, id)
  if not again then
    tally(q.stats, 'fired')
    counted(job, 'fired', 1, true)
    event(q, job, 'fired', id)
    ledger_keep(job, slot, keep)
  end
  return calling_say(call, RESULT.STARTED, id, lease)
end)
