-- lock/is_locked: whether each lock is held by anyone now.
--
-- KEYS[1] lock       hash  the locks, see _lib/lease
-- KEYS[2] lock:live  zset
-- ARGV[1] key        str
-- Batch: ARGV[1..1] repeat, one group a call, at most 256 a run.
--
-- Returns  1  held
--          0  free or expired
-- include: _lib/lock

local t = lock_table(KEYS[1], KEYS[2])
lock_gather(t, ARGV)
local out = each(1, function(i)
  local lease = lock_read(t, ARGV[i])
  return lease and lease.live and 1 or 0
end)
return out
