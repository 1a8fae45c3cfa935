-- job/resume: let a paused job's slots be fired again; those of the pause go into its ledger.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28..31] of _lib/schedule
-- KEYS[32] job:paused   hash  see _lib/pause
-- KEYS[33] job:changes  hash
-- KEYS[34] calendar     hash  see _lib/calendar
-- ARGV[1]  job       str
-- ARGV[2]  expected  str   what the caller saw in job:slot
-- ARGV[3]  held      str   what it saw in job:paused
-- ARGV[4]  slot      int   ms; the next one to fire; -1: none is left
-- ARGV[5]  due       int   ms; slot plus jitter
-- ARGV[6]  words     str   "REV RULES"
-- ARGV[7]  first     int   ms; the first of the pause that is skipped
-- ARGV[8]  last      int   ms; the last of those
-- ARGV[9]  count     int   how many; 0: none; -1: too many to count
-- ARGV[10] keep      str   how its ledger keeps, see _lib/ledger
-- ARGV[11] by        str   empty: its time has come
-- ARGV[12] call      id    of this call; the same again is the same call, repeated
-- ARGV[13] calendars str   by which it excludes, as the caller has read them, see beat/fire; empty: they say nothing here
-- ARGV[14] why       str
-- Batch: ARGV[1..14] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE      it goes on at that slot
--          NO        it is not paused
--          UNKNOWN   there is no such job
--          TOO_LATE  it has gone on since the caller looked, its pause was changed, or a calendar; and by itself: its time has not come
-- include: _lib/ledger _lib/pause _lib/messages _lib/calendar

local jobs = column(14, 1)
local s = schedule_of(KEYS[28], KEYS[29], KEYS[30], KEYS[31], jobs, KEYS[32])
local changes, calendars = page(KEYS[33]), page(KEYS[34])
for _, part in ipairs({s.defs, s.paused, changes, q.counts}) do gather(part, jobs) end
say(q.bell, message_job())

return each(14, function(i)
  local job, slot, words, count, keep = ARGV[i], tonumber(ARGV[i + 3]), ARGV[i + 5], tonumber(ARGV[i + 8]), ARGV[i + 9]
  local by, call = ARGV[i + 10], ARGV[i + 11]
  local said = reply_of(q.replies, call)
  if said then return tonumber(said) end
  local definition, line, ends = read(s.defs, job), read(s.paused, job) or '', schedule_until(s, job)
  if not definition then return RESULT.UNKNOWN end
  if not ends then return RESULT.NO end
  if (read(s.slots, job) or '') ~= ARGV[i + 1] or line ~= ARGV[i + 2] then return RESULT.TOO_LATE end
  if string.match(definition, '^%S+') ~= string.match(words, '^%S+') then return RESULT.TOO_LATE end
  if not calendars_agree(calendars, ARGV[i + 12]) then return RESULT.TOO_LATE end
  if by == '' and (ends == 0 or ends > now) then return RESULT.TOO_LATE end
  local code, detail = pause_says(s.paused, job, line)
  if count ~= 0 then ledger_several(job, 'skipped', tonumber(ARGV[i + 6]), tonumber(ARGV[i + 7]), count, code, detail, keep) end
  erase(s.paused, job)
  erase(s.slots, job)  -- or it stays paused
  schedule_place(s, job, slot, tonumber(ARGV[i + 4]), words)
  change_note(changes, job, change_text('resume', now, 0, by, ARGV[i + 13]))
  write(q.replies, call, int(RESULT.DONE))
  return RESULT.DONE
end)
