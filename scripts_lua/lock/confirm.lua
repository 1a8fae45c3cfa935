-- lock/confirm: renew for each waiter what a hand-off has given it, where the store is too full for lock/try_acquire.
--
-- KEYS[1] lock        hash  the locks, see _lib/lease
-- KEYS[2] lock:live   zset
-- KEYS[3] lock:owned  zset
-- ARGV[1] key         str
-- ARGV[2] owner       str
-- ARGV[3] token       id    of the call by which it waits
-- ARGV[4] ttl_ms      int
-- Batch: ARGV[1..4] repeat, one group a call, at most 256 a run.
--
-- Returns  {fence, expires_at_ms}  held under that token; both 0: not, or no longer
-- Under OOM: runs.
-- include: _lib/lock

local t = lock_table(KEYS[1], KEYS[2], KEYS[3])
local out = each(4, function(i)
  local key, ttl = ARGV[i], tonumber(ARGV[i + 3])
  local lease = lock_read(t, key)
  if not (lease and lease.live and lease.owner == ARGV[i + 1] and lease.calls == ARGV[i + 2]) then return {0, 0} end
  lease.ttl, lease.expires = ttl, now + ttl
  lock_put(t, key, lease)
  return {lease.fence, lease.expires}
end)
lock_scatter(t)
return out
