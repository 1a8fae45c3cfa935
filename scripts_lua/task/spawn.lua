-- task/spawn: put each task into its queue, once for an id.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str     made from the idempotency key, where there is one; else it ends in the call
-- ARGV[2]  call          id      of this call; the same again is the same call, repeated
-- ARGV[3]  record        text    "MAX JSON"
-- ARGV[4]  queue         str
-- ARGV[5]  priority      int
-- ARGV[6]  delay_ms      int     nobody may claim it before
-- ARGV[7]  max_delay_ms  int     cancelled if nobody has begun it by then; 0: however late
-- ARGV[8]  payload       json    params and headers; empty: none
-- Batch: ARGV[1..8] repeat, one group a call, at most 64 a run.
--
-- Returns  {created, attempt}  created: DONE, by this call; NO: it was there, in or after this attempt; ADOPTED: it was there, unconfirmed
--                              until its durability is known, and is now this call's to confirm or withdraw
-- Rarely: sweep_settle sweep_attempts sweep_untils sweep_ended task_forget record_set_back
-- include: _lib/sweep

gather(q.tasks, column(8, 1))
local out = each(8, function(i)
  local id, call, max_delay = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 6])
  local known = task_read(id)
  counter_read(q.fence)
  local keyed = string.sub(id, 5) ~= call
  if known and (not keyed or reply_of(q.replies, call)) then return {RESULT.DONE, 1} end
  if known and task_over(id, known) then
    task_forget(id, known)
    known = nil
  end
  if known and known.state == 'waiting' and policies(id, known).unconfirmed then
    -- Who is told of it can count on it: the call that made it no longer withdraws it.
    known.json = string.gsub(known.json, '"unconfirmed":"[^"]*"', '"unconfirmed":"' .. call .. '"', 1)
    task_write(id, known)
    return {RESULT.ADOPTED, 1}
  end
  if known then return {RESULT.NO, math.max(known.attempts + (known.state == 'waiting' and 1 or 0), 1)} end
  local record = record_new(ARGV[i + 2], 0)
  record.policies = {queue = ARGV[i + 3], priority = tonumber(ARGV[i + 4])}
  if max_delay > 0 then task_until(id, record, now + max_delay) end
  task_queue(id, record, now + tonumber(ARGV[i + 5]))
  if ARGV[i + 7] ~= '' then write(q.params, id, ARGV[i + 7]) end
  if keyed then write(q.replies, call, int(RESULT.DONE)) end
  tally(q.stats, 'spawned')
  return {RESULT.DONE, 1}
end)
-- So that what has ended goes at least as fast as new ones come.
task_sweep(math.min(2 * #out, 40), false, {ids = {}, count = 0, process = string.match(ARGV[#ARGV - 6], '^[^.]*%.')})
return out
