-- job/anchor: let a job stand at another slot, if it stands where the caller saw it: its slot was lost, or is none any more.
--
-- KEYS[1] job           hash    job -> "REV JSON"
-- KEYS[2] job:slot      hash    job -> "SLOT DUE REV RULES", see _lib/schedule
-- KEYS[3] job:due       zset
-- KEYS[4] ledger        hash
-- KEYS[5] ledger:order  zset
-- KEYS[6] bell          channel
-- ARGV[1] job           str
-- ARGV[2] expected      str     what the caller saw in job:slot; empty: nothing, it was lost
-- ARGV[3] slot          int     ms; -1: it has ended
-- ARGV[4] due           int     ms; slot plus jitter
-- ARGV[5] words         str     "REV RULES"
-- ARGV[6] reason        str     for the ledger; empty: that its slot was lost
-- ARGV[7] keep          int     ledger entries to keep
-- Batch: ARGV[1..7] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE      it stands there now
--          TOO_LATE  another was first, or its definition has changed
-- include: _lib/lease1 _lib/ledger _lib/schedule _lib/messages

local s, l = {slots = KEYS[2], dues = KEYS[3]}, {ledger = KEYS[4], order = KEYS[5]}
schedule_seen(s)
local out = {}
for i = 1, #ARGV, 7 do
  local job, keep = ARGV[i], tonumber(ARGV[i + 6])
  local rev = string.match(redis.call('HGET', KEYS[1], job) or '', '^%S*')
  local stands = (redis.call('HGET', s.slots, job) or '') == ARGV[i + 1] and rev == string.match(ARGV[i + 4], '^%S+')
  if stands then
    schedule_place(s, job, tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4])
    if ARGV[i + 5] ~= '' then
      schedule_tell(l, job, ARGV[i + 5], keep)
    elseif tonumber(ARGV[i + 2]) >= 0 then
      schedule_lost(l, job, keep)
    end
  end
  out[#out + 1] = stands and RESULT.DONE or RESULT.TOO_LATE
end
if not s.seen then schedule_see(s) end
redis.call('PUBLISH', KEYS[6], message_job())
return out
