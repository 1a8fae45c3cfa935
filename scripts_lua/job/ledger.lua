-- job/ledger: a job's latest slots, the newest first, and what became of them.
--
-- KEYS[1] ledger        hash
-- KEYS[2] ledger:order  zset
-- ARGV[1] job           str
-- ARGV[2] before        int   ms; only slots before this one; 0: from the newest
-- ARGV[3] limit         int
--
-- Returns  {{slot_ms, entry}, ...}  entry is JSON, see _lib/ledger
-- include: _lib/lease1 _lib/ledger

local job, before = ARGV[1], tonumber(ARGV[2])
-- From the newest that has come due: what lies ahead was entered before the clock was set back.
local high = before == 0 and '[' .. ledger_member(job, now + 100) or '(' .. ledger_member(job, before)
local out = {}
for _, member in ipairs(redis.call('ZREVRANGEBYLEX', KEYS[2], high, '[' .. job .. '\255', 'LIMIT', 0, ARGV[3])) do
  local slot = tonumber(string.sub(member, #job + 2))
  out[#out + 1] = {slot, redis.call('HGET', KEYS[1], job .. '@' .. int(slot)) or '{}'}
end
return out
