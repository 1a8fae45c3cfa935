-- job/pause: let no slot of a job be fired until it is resumed, or until a time has come.
--
-- KEYS[1]  job          hash     job -> "REV JSON"
-- KEYS[2]  job:slot     hash     job -> "SLOT DUE REV RULES", see _lib/schedule
-- KEYS[3]  job:due      zset
-- KEYS[4]  job:paused   hash     see _lib/pause
-- KEYS[5]  job:changes  hash
-- KEYS[6]  bell         channel
-- KEYS[7]  reply:0      hash     see _lib/reply
-- KEYS[8]  reply:1      hash
-- KEYS[9]  reply:2      hash
-- KEYS[10] ledger:order  zset  see _lib/events
-- KEYS[11] job:counts    hash
-- ARGV[1]  job       str
-- ARGV[2]  what      str   pause or skip_next
-- ARGV[3]  until     int   ms; of skip_next the last slot to skip; 0: until it is resumed
-- ARGV[4]  expected  str   what the caller saw in job:slot; empty: it does not matter
-- ARGV[5]  held      str   what it saw in job:paused, if it matters
-- ARGV[6]  by        str
-- ARGV[7]  why       str
-- ARGV[8]  call      id    of this call; the same again is the same call, repeated
-- Batch: ARGV[1..8] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE      it is paused, by this call
--          NO        it was paused before; now for this reason and until this time
--          UNKNOWN, FINISHED  there is no such job; it has no slot any more
--          TOO_LATE  that time is over, or the job has gone on since the caller looked
-- Under OOM: runs.
--
-- It changes what job:slot says. So beat/fire of an instance that was told of the slot before finds that another came first.
-- include: _lib/pause _lib/reply _lib/messages _lib/events

local s = {defs = page(KEYS[1]), slots = page(KEYS[2]), dues = index(KEYS[3]), paused = page(KEYS[4])}
local changes, replies = page(KEYS[5]), join(reply_table(KEYS[7], KEYS[8], KEYS[9]), reply_close)
local jobs, told = column(8, 1), {order = index(KEYS[10]), counts = page(KEYS[11]), bell = KEYS[6]}
for _, part in ipairs({s.defs, s.slots, s.paused, changes}) do gather(part, jobs) end
say(KEYS[6], message_job())

return each(8, function(i)
  local job, what, ends, expected, by, why, call = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7]
  local said = reply_of(replies, call)
  if said then return tonumber(said) end
  local definition = read(s.defs, job)
  if not definition then return RESULT.UNKNOWN end
  local place, line = read(s.slots, job), read(s.paused, job)
  local called = string.find(definition, '"type":"called"', 1, true)  -- job/begin looks at its pause, and at its end
  if place and string.sub(place, 1, 3) == '-1 ' and not called then return RESULT.FINISHED end
  if expected == '' then
    if ends > 0 and ends <= now then return RESULT.TOO_LATE end
  elseif expected ~= place or ARGV[i + 4] ~= (line or '') then
    return RESULT.TOO_LATE
  end
  local since, before = now, schedule_until(s, job)
  if before and line then
    local was, at = change_parse(s.paused, job, line)
    if was == what then since = at end
  end
  write(s.paused, job, change_text(what, since, ends, by, why))
  if place then
    write(s.slots, job, (string.gsub(place, '^(%S+) %S+', '%1 ' .. NEVER)))
    enter(s.dues, job, ends > 0 and not called and ends or tonumber(NEVER))
  end
  change_note(changes, job, change_text(what, now, ends, by, why))
  if what == 'pause' and not before then event(told, job, 'paused', by, why, ends) end
  local code = before and RESULT.NO or RESULT.DONE
  write(replies, call, int(code))
  return code
end)
