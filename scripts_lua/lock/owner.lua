-- lock/owner: who holds each lock now.
--
-- KEYS[1] lock       hash  the locks, see _lib/lease
-- KEYS[2] lock:live  zset
-- ARGV[1] key        str
-- Batch: ARGV[1..1] repeat, one group a call, at most 256 a run.
--
-- Returns  {owner, fence, expires_at_ms}  held
--          {}                             free or expired
-- include: _lib/lock

local t = lock_table(KEYS[1], KEYS[2])
lock_gather(t, ARGV)
local out = each(1, function(i)
  local lease = lock_read(t, ARGV[i])
  return lease and lease.live and {lease.owner, lease.fence, lease.expires} or {}
end)
return out
