-- job/anchor: let a job stand at another slot, if it stands where the caller saw it: its slot was lost, or is none any more.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28..31] of _lib/schedule
-- KEYS[32] job:paused  hash  see _lib/pause: a paused job stays paused
-- ARGV[1]  job        str
-- ARGV[2]  expected   str   what the caller saw in job:slot; empty: nothing, it was lost
-- ARGV[3]  slot       int   ms; -1: it has ended
-- ARGV[4]  due        int   ms; slot plus jitter
-- ARGV[5]  words      str   "REV RULES"
-- ARGV[6]  code       str   of the reason, for the ledger; empty: its slot was lost
-- ARGV[7]  detail     str   what the reason names
-- ARGV[8]  keep       str   how its ledger keeps, see _lib/ledger
-- Batch: ARGV[1..8] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE      it stands there now
--          TOO_LATE  another was first, or its definition has changed
-- include: _lib/ledger _lib/schedule _lib/messages

local jobs = column(8, 1)
local s = schedule_of(KEYS[28], KEYS[29], KEYS[30], KEYS[31], jobs, KEYS[32])
gather(s.defs, jobs)
gather(s.paused, jobs)
if not s.seen then schedule_see(s) end
say(q.bell, message_job())
return each(8, function(i)
  local job, slot, words, keep = ARGV[i], tonumber(ARGV[i + 2]), ARGV[i + 4], ARGV[i + 7]
  local rev = string.match(read(s.defs, job) or '', '^%S*')
  if (read(s.slots, job) or '') ~= ARGV[i + 1] or rev ~= string.match(words, '^%S+') then return RESULT.TOO_LATE end
  schedule_place(s, job, slot, tonumber(ARGV[i + 3]), words)
  if ARGV[i + 5] ~= '' then
    ledger_anchored(job, ARGV[i + 5], ARGV[i + 6], keep)
  elseif slot >= 0 then
    ledger_lost(job, keep)
  end
  return RESULT.DONE
end)
