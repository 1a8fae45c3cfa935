-- lock/is_locked: whether each lock is held by anyone now.
--
-- KEYS[1] lock  hash  the locks, see _lib/lease1
-- ARGV[1] key   str
-- Batch: ARGV[1..1] repeat, one group a call, at most 256 a run.
--
-- Returns  1  held
--          0  free or expired
-- include: _lib/lease1

local t = {leases = KEYS[1]}
local out = each(1, function(i)
  local lease = lease_read(t, ARGV[i])
  return lease and lease.live and 1 or 0
end)
return out
