-- job/declared: which of these jobs stand as they are declared, so that job/put would change nothing of them.
--
-- KEYS[1..4] of _lib/schedule
-- KEYS[5] epoch      string
-- ARGV[1] job        str
-- ARGV[2] head       str     how its definition has to begin: "REV "
-- ARGV[3] place      str     how job:slot has it if it stands at the first slot after now
-- Batch: ARGV[1..3] repeat, one group a call, at most 512 a run.
--
-- Returns  EPOCH  it does, and the shard's epoch is this
--          0      it may not: put it
--
-- An instance that starts again with what it declared before sends digests, not definitions.
-- include: _lib/schedule

local jobs = column(3, 1)
local s = schedule_of(KEYS[1], KEYS[2], KEYS[3], KEYS[4], jobs)
local epoch, out = tonumber(redis.call('GET', KEYS[5]) or '0') or 0, {}
local sound = s.seen and epoch > 0 and schedule_odd(s, epoch) == RESULT.NO
if sound then gather(s.defs, jobs) end

-- One that came due and was not fired, or is paused, stays where it is, if it was put there by the same definition and rules.
local function waits(place, wanted)
  local slot, words = string.match(place, '^(%S+) %S+ (.*)$')
  return words == string.match(wanted, '^%S+ %S+ (.*)$') and (tonumber(slot) <= now or slot == string.match(wanted, '^%S+'))
end

for i = 1, #ARGV, 3 do
  local head, wanted = ARGV[i + 1], ARGV[i + 2]
  local line, place = s.defs[ARGV[i]], s.slots[ARGV[i]]
  local same = sound and line and place and string.find(line, head, 1, true) == 1 and (place == wanted or waits(place, wanted))
  out[#out + 1] = same and epoch or 0
end
return out
