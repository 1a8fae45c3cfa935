-- job/trigger: have a job's function run now, as a task of its own beside the slots.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28] job          hash  job -> "REV JSON"
-- KEYS[29] job:changes  hash  see _lib/pause
-- ARGV[1]  job      str
-- ARGV[2]  rev      str   of the definition that the record was made by
-- ARGV[3]  id       id    JOB!ID of this call; the same again is the same call, repeated
-- ARGV[4]  record   text  "MAX JSON"
-- ARGV[5]  overlap  str   allow: beside whatever runs of it
-- ARGV[6]  payload  json  params; empty: none
-- ARGV[7]  owner    str   of the caller
-- ARGV[8]  by       str
-- ARGV[9]  why      str
--
-- Returns  {said, id}  said: DONE; BUSY: the job's task ID has not ended; UNKNOWN: no such job; TOO_LATE: it has another definition
--
-- Under any overlap but allow it is the job's unfinished task, so that slots are skipped for it as for one of their own; and it is leased as
-- the job's lock. It makes way for no slot, though no worker has begun it.
-- include: _lib/sweep _lib/pause

task_sweep(20, false, {ids = {}, count = 0})  -- or it would be refused for a task whose instance is dead

return answer(function()
  local job, id, text, overlap, owner = ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[7]
  if task_read(id) then return {RESULT.DONE, id} end
  local definition = read(page(KEYS[28]), job)
  if not definition then return {RESULT.UNKNOWN, ''} end
  if string.match(definition, '^%S+') ~= ARGV[2] then return {RESULT.TOO_LATE, ''} end
  local open = overlap ~= 'allow' and line_of(job)
  local last = open and task_unfinished(open, owner)
  if open and not last then
    line_leave(job, open)
    open = line_of(job)
    last = open
  end
  if last then return {RESULT.BUSY, open} end
  task_queue(id, record_new(text, now), now)
  if ARGV[6] ~= '' then write(q.params, id, ARGV[6]) end
  if overlap ~= 'allow' then write(q.open, job, id) end
  local at = string.format('%015d', now)
  log_enter('\255' .. at, id)
  log_enter('\255\255' .. at, id)
  tally(q.stats, 'spawned')
  change_note(page(KEYS[29]), job, change_text('trigger', now, 0, ARGV[8], ARGV[9]))
  return {RESULT.DONE, id}
end)
